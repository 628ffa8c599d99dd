"""Class count and input channels are read from the weights, for every kind of family."""

import pytest
import torch
import torchvision
from torch import nn

from workers.graph.architectures import architecture_names, build_for, native_size
from workers.graph.resnets import RESNETS

SMALL = """resnet18 vgg11 mobilenet_v2 mobilenet_v3_small shufflenet_v2_x0_5 squeezenet1_1 mnasnet0_5
    regnet_y_400mf""".split()
LARGE = "densenet121 vit_b_16 swin_t convnext_tiny efficientnet_b0 googlenet inception_v3 maxvit_t".split()


def first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_families(name: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    original = torchvision.models.get_model(name, weights=None, num_classes=13, **options).eval()
    model = build_for(name, original.state_dict())
    x = torch.rand(2, 3, size := native_size(name) or 0, size)
    with torch.no_grad():
        assert torch.equal(model(x), original(x))
        assert model(x).shape == (2, 13)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_with_and_without_auxiliary_heads(name: str, auxiliary: bool) -> None:
    with torch.device("meta"):
        like = torchvision.models.get_model(
            name, weights=None, num_classes=5, init_weights=False, aux_logits=auxiliary
        )
    weights = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in like.state_dict().items()}
    assert build_for(name, weights).state_dict().keys() == weights.keys()


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "cifar_resnet8"])
def test_grey_pictures(name: str) -> None:
    if name in RESNETS:
        weights = RESNETS[name](in_channels=1).state_dict()
    else:
        weights = torchvision.models.get_model(name, weights=None, num_classes=3).state_dict()
        first = next(key for key, value in weights.items() if value.dim() == 4)
        weights[first] = weights[first].sum(1, keepdim=True)
    model = build_for(name, weights)
    assert first_convolution(model).in_channels == 1
    assert model(torch.rand(2, 1, 64, 64)).shape[0] == 2


@pytest.mark.parametrize("depth", [8, 20])
@pytest.mark.parametrize("width", [8, 16, 24])
@pytest.mark.parametrize("classes", [2, 100])
def test_small_resnets_of_any_width(depth: int, width: int, classes: int) -> None:
    original = RESNETS[f"cifar_resnet{depth}"](width=width, num_classes=classes).eval()
    model = build_for(f"cifar_resnet{depth}", original.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(x), original(x))


def test_names_and_sizes() -> None:
    names = architecture_names()
    assert {"cifar_resnet20", "resnet18", "vit_b_16"} <= {*names}
    assert (native_size("inception_v3"), native_size("resnet18"), native_size("cifar_resnet20")) == (
        299,
        224,
        None,
    )
    assert not [name for name in names if "rcnn" in name or name.startswith(("deeplab", "raft"))]
