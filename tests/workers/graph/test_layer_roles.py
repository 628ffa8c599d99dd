"""Which layers give the logits, and which may lose channels whatever the rest of the network does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from tests.workers.graph.networks import Attention, Kinds, Residual, Shared, trained
from workers.graph.archive import read_archive
from workers.graph.layer_roles import inner_layers, output_layers
from workers.graph.modules import to_modules
from workers.graph.program import as_written
from workers.graph.resnets import RESNETS

Export = Callable[..., Path]


class Shuffle(nn.Module):
    """A ShuffleNet unit: half of the channels pass by, the other half goes through a depthwise bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.expand, self.depthwise = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.project = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        right = self.project(torch.relu(self.norm(self.depthwise(torch.relu(self.expand(right))))))
        x = torch.cat([left, right], 1)
        n, _, h, w = x.shape
        return self.fc(x.view(n, 2, 4, h, w).transpose(1, 2).reshape(n, 8, h, w).mean((2, 3)))  # type: ignore[no-any-return]


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = nn.Conv2d(3, 4, 1), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(nn.functional.adaptive_avg_pool2d(self.stem(x), 1), 1)
        return torch.log_softmax(self.one(x) + 0.5 * self.other(x), 1)


def roles(net: Callable[[], nn.Module], export: Export) -> tuple[set[str], set[str]]:
    """Names of the inner and of the output layers."""
    graph: GraphModule = to_modules(as_written(read_archive(export(trained(net)))), (3, 16, 16))
    names = {module: name for name, module in graph.named_modules()}
    return {names[module] for module in inner_layers(graph)}, {
        names[module] for module in output_layers(graph)
    }


@pytest.mark.parametrize(
    ("net", "inner", "outputs"),
    [
        # conv1 is read again by the residual add; conv2 is added to; of the gate, `excite` multiplies.
        (Residual, {"squeeze"}, {"fc"}),
        (Attention, {"ffn.0"}, {"head"}),
        # A depthwise layer belongs to whoever feeds it.
        (Shuffle, {"expand", "depthwise"}, {"fc"}),
        (TwoHeads, set(), {"one", "other"}),
    ],
)
def test_roles(net: Callable[[], nn.Module], inner: set[str], outputs: set[str], export: Export) -> None:
    assert roles(net, export) == (inner, outputs)


def test_every_block_of_a_resnet_has_one_inner_layer(export: Export) -> None:
    inner, outputs = roles(RESNETS["cifar_resnet8"], export)
    assert inner == {"layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"}
    assert outputs == {"fc"}


@pytest.mark.parametrize("net", [Shared, Kinds])
def test_output_layers_are_never_inner(net: Callable[[], nn.Module], export: Export) -> None:
    inner, outputs = roles(net, export)
    assert outputs
    assert not inner & outputs
