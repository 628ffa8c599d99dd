"""A block without which the network computes what it does with the block's output silenced."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support.arrays import context
from tests.workers.pruning.networks import Dense, Grouped, Transformer, graph_of
from workers.graph.resnets import CifarResNet
from workers.pruning.blocks import remove_blocks, residual_blocks, without

SAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def resnet() -> CifarResNet:
    """Two blocks per stage; the first of stages 2 and 3 changes the shape."""
    return CifarResNet(14, num_classes=3, in_channels=1, width=4).eval()


def names(net: nn.Module) -> list[tuple[str, ...]]:
    return [block.layers for block in residual_blocks(graph_of(net), SAMPLE)]


def test_blocks_of_identity_shape_are_found() -> None:
    blocks = ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]
    assert {frozenset(layers) for layers in names(resnet())} == {
        frozenset((f"{block}.conv1", f"{block}.conv2")) for block in blocks
    }


def test_blocks_of_other_architectures() -> None:
    assert [set(layers) for layers in names(Transformer())] == [{"qkv", "proj"}, {"up", "down"}]
    assert [set(layers) for layers in names(Grouped())] == [
        {"expand", "depthwise", "squeeze", "excite", "project"}
    ]
    assert names(Dense()) == []


def test_a_removed_block_is_the_identity() -> None:
    net = resnet()
    graph = graph_of(net)
    block = next(b for b in residual_blocks(graph, SAMPLE) if "layer2.1.conv1" in b.layers)
    short = without(graph, block)
    last = net.layer2[1].bn2
    assert isinstance(last, nn.BatchNorm2d)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    assert not any(name.startswith("layer2.1.conv") for name, _ in short.named_modules())
    torch.testing.assert_close(short(SAMPLE), net(SAMPLE))
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in graph.parameters())


def test_the_block_that_is_missed_least_goes_first(tmp_path: Path) -> None:
    graph, here = graph_of(resnet()), context(tmp_path)
    inputs, labels = next(iter(here.data.batches("calibration", 48)))
    losses = {
        block.layers: float(F.cross_entropy(without(graph, block)(inputs), labels).detach())
        for block in residual_blocks(graph, SAMPLE)
    }
    _, (gone,) = remove_blocks(graph, SAMPLE, here, most=1, keep=frozenset(), enough=lambda _: False)
    assert gone.layers == min(losses, key=losses.__getitem__)
    assert len(set(losses.values())) == 4


def test_removal_stops_at_what_is_enough_at_most_and_at_what_is_kept(tmp_path: Path) -> None:
    graph, here = graph_of(resnet()), context(tmp_path)

    def removed(**settings: object) -> int:
        asked = {"most": 9, "keep": frozenset(), "enough": lambda _: False, **settings}
        shorter, gone = remove_blocks(graph, SAMPLE, here, **asked)  # type: ignore[arg-type]
        assert len(residual_blocks(shorter, SAMPLE)) >= 4 - len(gone)
        return len(gone)

    assert removed() == 4
    assert removed(most=2) == 2
    assert removed(keep=frozenset({"layer1.1.conv2"})) == 3
    whole = sum(p.numel() for p in graph.parameters())
    assert removed(enough=lambda g: sum(p.numel() for p in g.parameters()) < whole) == 1
    assert len(residual_blocks(graph, SAMPLE)) == 4  # the given graph stays


class Leaking(nn.Module):
    """Two additions around layers that are no blocks: one's inside is read later, one reads from before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 4, 1), nn.Linear(4, 3)
        self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = self.stem(x)
        inside = self.a(start)
        first = start + self.b(inside)
        second = first + self.c(first * start)
        third = second + self.d(second)
        logits: torch.Tensor = self.fc((third * inside).mean((2, 3)))
        return logits


class Positioned(nn.Module):
    """A learned position is added to everything before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 4, 1), nn.Linear(4, 3)
        self.position = nn.Parameter(torch.randn(2, 4, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc((self.stem(x) + self.position).mean((2, 3)))
        return logits


def test_a_position_is_no_way_around_what_it_is_added_to() -> None:
    assert names(Positioned()) == []


def test_what_is_read_from_outside_or_reads_from_there_is_no_block() -> None:
    assert names(Leaking()) == [("d",)]
