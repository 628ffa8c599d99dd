"""Which channels go together, how their scores add up, and that a wrong cut is noticed."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.workers.pruning.networks import Dense, Grouped, Residual, Shuffled, chain, graph_of, widths
from workers.graph.layer_roles import layer_weights
from workers.pruning import groups as module
from workers.pruning.groups import CannotFollow, Group, cut, find_groups

SAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def found(net: nn.Module, *, keep: tuple[str, ...] = ()) -> tuple[dict[str, Group], dict[str, torch.Tensor]]:
    """Groups by root, and random scores."""
    graph = graph_of(net)
    scores = {name: torch.rand(weight.shape) for name, weight in layer_weights(graph).items()}
    roots = list(widths(graph))[:-1]
    return {g.root: g for g in find_groups(graph, SAMPLE, scores, roots=roots, keep=keep)}, scores


def test_a_residual_connection_couples_and_a_branch_does_not() -> None:
    groups, _ = found(Residual())
    assert {group.layers for group in groups.values()} == {("b", "stem"), ("a",)}
    assert {group.width for group in groups.values()} == {16}


def test_scores_add_up_over_outputs_and_inputs_of_all_coupled_layers() -> None:
    groups, scores = found(Residual())
    inner = scores["a.weight"].sum((1, 2, 3)) + scores["b.weight"].sum((0, 2, 3))
    torch.testing.assert_close(groups["a"].scores, inner)
    outer = (
        scores["stem.weight"].sum((1, 2, 3))
        + scores["b.weight"].sum((1, 2, 3))
        + scores["a.weight"].sum((0, 2, 3))
        + scores["fc.weight"].sum(0)
    )
    torch.testing.assert_close(groups["stem"].scores, outer)


def test_scores_of_flattened_and_concatenated_channels() -> None:
    """c has 16 channels of 6x6 that the classifier sees as 576 features; a lies first in a concatenation."""
    groups, scores = found(Dense())
    flattened = scores["c.weight"].sum((1, 2, 3)) + scores["fc.weight"].sum(0).view(16, 36).sum(1)
    torch.testing.assert_close(groups["c"].scores, flattened)
    first = (
        scores["a.weight"].sum((1, 2, 3))
        + scores["b.weight"].sum((0, 2, 3))
        + scores["c.weight"][:, :16].sum((0, 2, 3))
    )
    torch.testing.assert_close(groups["a"].scores, first)


def test_scores_of_grouped_convolutions() -> None:
    """Both halves lose the same channels: the mean over them."""
    groups, scores = found(Grouped())
    grouped = groups["grouped"]
    assert grouped.parts == 2
    per_channel = scores["grouped.weight"].sum((1, 2, 3)) + scores["fc.weight"].sum(0)
    torch.testing.assert_close(grouped.scores, per_channel.view(2, 16).mean(0))
    stem = groups["stem"]
    halves = scores["grouped.weight"].view(2, 16, 8, 3, 3).sum((1, 3, 4)).flatten()
    outer = (
        scores["stem.weight"].sum((1, 2, 3))
        + scores["project.weight"].sum((1, 2, 3))
        + scores["expand.weight"].sum((0, 2, 3))
        + halves
    )
    torch.testing.assert_close(stem.scores, outer.view(2, 8).mean(0))


def test_layers_to_keep_lose_neither_outputs_nor_inputs() -> None:
    groups, _ = found(Residual(), keep=("a",))
    assert groups == {}
    groups, _ = found(chain(), keep=("0",))
    assert set(groups) == {"3"}


@pytest.mark.parametrize("net", [Residual, Grouped, Dense, chain])
def test_a_cut_computes_what_the_network_does_without_the_channels(net: Callable[[], nn.Module]) -> None:
    graph = graph_of(net())
    groups, _ = found(net())
    cut(graph, SAMPLE, {g.root: g.channels(torch.arange(2)) for g in groups.values()})
    assert all(widths(graph)[layer] < g.width for g in groups.values() for layer in g.layers)


class Normalized(nn.Module):
    """Statistics over all channels, in convolutional and in channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.group, self.b = nn.Conv2d(1, 16, 3), nn.GroupNorm(4, 16), nn.Conv2d(16, 24, 1)
        self.layer, self.fc = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.relu(self.group(self.a(x))))
        logits: torch.Tensor = self.fc(self.layer(x.permute(0, 2, 3, 1)).mean((1, 2)))
        return logits


@pytest.mark.parametrize("net", [chain, Normalized])
def test_the_comparison_is_made(net: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without disconnecting first, cut and whole network differ; with it they do not."""
    graph = graph_of(net())
    root = "0" if net is chain else "b"
    cut(graph_of(net()), SAMPLE, {root: [1, 3, 5]})
    monkeypatch.setattr(module, "_disconnect", lambda _: None)
    with pytest.raises(CannotFollow, match="other channels"):
        cut(graph, SAMPLE, {root: [1, 3, 5]})
    assert not any(part._forward_hooks for part in graph.modules())


def test_nothing_can_be_compared_where_all_logits_are_zero() -> None:
    net = chain()
    nn.init.zeros_(net[7].weight)  # type: ignore[arg-type]
    nn.init.zeros_(net[7].bias)  # type: ignore[arg-type]
    with pytest.raises(CannotFollow, match="all logits are zero"):
        cut(graph_of(net), SAMPLE, {"0": [1]})


def test_channels_that_are_followed_wrongly_are_noticed() -> None:
    with pytest.raises(CannotFollow):
        cut(graph_of(Shuffled()), SAMPLE, {"a": list(range(8))})
