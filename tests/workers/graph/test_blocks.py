"""A graph in a few boxes: nothing lost, readable at any size."""

from typing import Any

import pytest
import torchvision
from torch import nn

from tests.workers.graph.networks import Residual, trained
from workers.base import ImagePreprocessing
from workers.graph.archive import trace
from workers.graph.blocks import MOST, blocks_of
from workers.graph.modules import to_modules


def boxes(net: nn.Module, side: int = 64, **how: Any) -> list[dict[str, Any]]:
    looks = ImagePreprocessing(channels=3, height=side, width=side, mean=(0.0,) * 3, std=(1.0,) * 3)
    return blocks_of(to_modules(trace(net.eval(), looks).module(), looks.shape), **how)


def weights(found: list[dict[str, Any]]) -> int:
    return sum(box["parameters"] * box["repeats"] for box in found)


def layers(found: list[dict[str, Any]], kind: str) -> int:
    return sum(box["layers"].get(kind, 0) * box["repeats"] for box in found)


@pytest.mark.parametrize("name", ["resnet50", "shufflenet_v2_x0_5", "vgg11"])
def test_every_weight_and_layer_is_in_one_box(name: str) -> None:
    net = torchvision.models.get_model(name, weights=None)
    found = boxes(net)
    assert len(found) <= MOST
    assert weights(found) == sum(parameter.numel() for parameter in net.parameters())
    assert layers(found, "Conv2d") == sum(isinstance(module, nn.Conv2d) for module in net.modules())
    assert all(source < place for place, box in enumerate(found) for source in box["inputs"])


def test_a_deep_net_becomes_its_residual_blocks() -> None:
    """He et al. 2015, table 1: 3, 4, 6 and 3 blocks, the first of each with a convolution as shortcut."""
    found = boxes(torchvision.models.resnet50(weights=None))
    blocks = [box for box in found if box["name"].startswith("layer")]
    assert [box["repeats"] for box in blocks] == [1, 2, 1, 3, 1, 5, 1, 1, 1]  # the last one pools, too
    assert [box["layers"]["Conv2d"] for box in blocks] == [4, 3, 4, 3, 4, 3, 4, 3, 3]
    assert [box["inputs"] for box in found] == [[], *[[place] for place in range(len(found) - 1)]]


def test_a_small_net_shows_its_branches() -> None:
    found = boxes(trained(Residual), 16)
    assert any(len(box["inputs"]) == 2 for box in found)
    coarse = boxes(trained(Residual), 16, most=1)
    assert len(coarse) < len(found)
    assert all(len(box["inputs"]) <= 1 for box in coarse)
    assert weights(coarse) == weights(found)
