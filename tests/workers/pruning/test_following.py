"""torch-pruning's search runs for ever on some architectures: fewer layers are then tried, or it is said."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_pruning as tp
from torch import fx, nn

from tests.support.arrays import context
from tests.workers.pruning.networks import PREPROCESSING, SPEC, Residual, chain, model_of, widths
from workers.base import Candidate
from workers.errors import StepFailed
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.methods.structured_pruning import StructuredPruning
from workers.pruning import following

#: By the shape of a layer's weights and the number of its channels that are asked for.
Where = Callable[[torch.Size, int], bool]
WHERE: dict[str, Where] = {
    "search": lambda shape, channels: channels == shape[0],
    "comparison": lambda shape, channels: channels < shape[0],
}


def hang(*_: object) -> bool:
    """Not come back, with a clock that runs ahead: a limit is reached at once, on a slow machine too."""
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(60)
    return True


def hang_in_search(monkeypatch: pytest.MonkeyPatch, where: Where) -> None:
    search = tp.DependencyGraph.get_pruning_group

    def searched(graph: tp.DependencyGraph, layer: nn.Module, handler: object, channels: list[int]) -> object:
        if where(layer.get_parameter("weight").shape, len(channels)):
            hang()
        return search(graph, layer, handler, channels)

    monkeypatch.setattr(tp.DependencyGraph, "get_pruning_group", searched)


def prune(model: Candidate, folder: Path, amount: float = 0.5) -> tuple[fx.GraphModule, tuple[str, ...]]:
    after = StructuredPruning(amount=amount, recovery="none").apply(model, context(folder))
    assert after.graph is not None
    return after.graph, after.notes


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
def test_a_search_without_end_is_ended(where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang_in_search(monkeypatch, where)
    with pytest.raises(
        StepFailed, match=r"followed \(the search for coupled channels took over 60 s\)\. Leave"
    ):
        prune(model_of(chain()), tmp_path)


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
def test_fewer_layers_are_tried_when_the_search_for_all_has_no_end(
    where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a residual net the layer inside of the block is left, whose channels nobody else shares."""
    net = Residual()
    net.a = nn.Conv2d(16, 16, 1)
    write_archive(trace(net.eval(), PREPROCESSING), tmp_path / "net.pt2")
    hang_in_search(monkeypatch, lambda shape, channels: shape[2:] == (3, 3) and where(shape, channels))
    pruned, notes = prune(open_model(tmp_path / "net.pt2", SPEC), tmp_path, amount=0.1)
    assert widths(pruned) == {"stem": 16, "a": 8, "b": 16, "fc": 3}
    assert notes[0].startswith("2 of 4 layers keep their width, e.g. stem:")
    assert "(the search for coupled channels took over 60 s)" in notes[0]


def test_a_cut_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the channels, as in the comparison, come back; those that the amount needs do not."""
    hang_in_search(monkeypatch, lambda shape, channels: shape[0] / 2 < channels < shape[0])
    with pytest.raises(StepFailed, match=r"comparison \(the search for coupled channels took over 60 s\)"):
        prune(model_of(chain()), tmp_path)


def test_comparisons_may_not_take_for_ever_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "holds", hang)
    with pytest.raises(StepFailed, match=r"cannot be followed \(took over 300 s\)"):
        prune(model_of(chain()), tmp_path)
