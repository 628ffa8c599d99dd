"""Students against networks that are written out, and against the layers they are made from."""

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from tests.support.arrays import candidate, small_net
from workers.base import ImagePreprocessing, ModelSpec
from workers.errors import ModelRefused, StepFailed
from workers.graph.architectures import build_new
from workers.graph.resnets import CifarResNet
from workers.graph.students import known, narrower, shallower

PREPROCESSING = ImagePreprocessing(channels=1, height=16, width=16, mean=(0.0,), std=(1.0,))
SPEC = ModelSpec(name="n", sha256="0" * 64, architecture=None, classes=5, preprocessing=PREPROCESSING)
IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet20() -> GraphModule:
    return known("cifar_resnet20", SPEC, seed=0)


def widths(graph: nn.Module) -> list[int]:
    return [module.out_channels for module in graph.modules() if isinstance(module, nn.Conv2d)]


def logits(graph: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = graph.eval()(IMAGES)
    return answer


def test_known_has_fresh_weights_by_seed_and_trains_like_a_module(resnet20: GraphModule) -> None:
    again, other = known("cifar_resnet20", SPEC, seed=0), known("cifar_resnet20", SPEC, seed=1)
    assert torch.equal(logits(again), logits(resnet20))
    assert not torch.equal(logits(other), logits(resnet20))
    assert logits(resnet20).shape == (3, 5)
    reference = CifarResNet(20, num_classes=5, in_channels=1)
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in reference.parameters())
    means = [m.running_mean for m in again.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [mean.clone() for mean in means if mean is not None]
    again.train()
    again(IMAGES)
    assert all(not torch.equal(a, b) for a, b in zip(before, means, strict=True) if b is not None)


def test_known_says_when_pictures_are_too_small_or_a_name_is_unknown() -> None:
    with pytest.raises(StepFailed, match="architecture alexnet: cannot take pictures of 16x16"):
        known("alexnet", SPEC, seed=0)
    with pytest.raises(ModelRefused, match="cifar_resnet20"):
        known("cifar_resnet21", SPEC, seed=0)


@pytest.mark.parametrize(
    ("depth", "gone"),
    [
        (0.99, []),
        (0.8, ["layer1.2"]),
        (0.5, ["layer1.2", "layer2.2", "layer3.2"]),
        (0.0, ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]),
    ],
)
def test_shallower_is_the_network_without_its_last_blocks(
    resnet20: GraphModule, depth: float, gone: list[str]
) -> None:
    if not gone:
        with pytest.raises(StepFailed, match="7 residual branches"):
            shallower(resnet20, SPEC, depth=depth)
        return
    net = build_new("cifar_resnet20", classes=5, channels=1, seed=0)
    student, removed, count = shallower(resnet20, SPEC, depth=depth)
    for name in gone:
        net.set_submodule(name, nn.Identity())
    assert (removed, count) == (len(gone), 7)
    torch.testing.assert_close(logits(student), logits(net), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in student.parameters()) == sum(p.numel() for p in net.parameters())
    assert len(widths(resnet20)) == 21, "the graph it was made from stays"


def test_shallower_refuses_a_network_without_branches() -> None:
    with pytest.raises(StepFailed, match="no residual branch"):
        shallower(small_net(), candidate(None).spec, depth=0.5)


def test_narrower_keeps_a_share_of_every_width_and_no_weights(resnet20: GraphModule) -> None:
    student = narrower(resnet20, SPEC, width=0.5, round_to=8, seed=1)
    assert widths(student) == [width // 2 for width in widths(resnet20)]
    assert logits(student).shape == (3, 5)
    other = narrower(resnet20, SPEC, width=0.5, round_to=8, seed=2)
    again = narrower(resnet20, SPEC, width=0.5, round_to=8, seed=1)
    assert torch.equal(logits(student), logits(again))
    assert not torch.equal(logits(student), logits(other))
    kept = [m for m in resnet20.modules() if isinstance(m, nn.Conv2d)]
    made = [m for m in student.modules() if isinstance(m, nn.Conv2d)]
    for old, new in zip(kept, made, strict=True):
        olds = old.weight.detach().flatten()
        assert torch.isin(new.weight.detach().flatten(), olds).float().mean() < 0.01


def test_narrower_says_when_nothing_can_go() -> None:
    spec = candidate(None).spec
    with pytest.raises(StepFailed, match="round_to=8"):
        narrower(small_net(), spec, width=0.5, round_to=8, seed=0)
    student = narrower(small_net(), spec, width=0.5, round_to=1, seed=0)
    assert widths(student) == [4, 4]
