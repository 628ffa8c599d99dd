"""Where exits are put, by made-up times and by real ones."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.fx import GraphModule

from tests.support.arrays import context
from tests.workers.graph.networks import Attention, trained
from workers.base import ImagePreprocessing
from workers.errors import StepFailed
from workers.exits import placing
from workers.exits.placing import MIN_GAP, SHARES, Spot, place_by_name, place_by_number, timed_places
from workers.graph.archive import read_archive, trace_shape, write_archive
from workers.graph.cutting import block_ends, cut_points, is_size
from workers.graph.modules import to_modules
from workers.graph.program import as_written
from workers.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeSession


def chain(blocks: int, channels: int = 4) -> GraphModule:
    """Equal convolutions, so that every block takes as long as the next."""
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 1), nn.ReLU()]
    for _ in range(blocks):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return fx.symbolic_trace(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * channels, 3))).eval()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "SECONDS", 0.2)


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares by the place of a cut, instead of times, and heads of no cost."""

    def made(graph: GraphModule, points: Sequence[fx.Node], *_: object) -> list[Spot]:  # noqa: ARG001
        return [
            Spot(name=point.name, share=index / (len(points) + 1), head=0.0)
            for index, point in enumerate(points, start=1)
        ]

    monkeypatch.setattr(placing, "timed_places", made)


@pytest.mark.usefixtures("even")
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_stands_nearest_to_the_shares(number: int, tmp_path: Path) -> None:
    places = place_by_number(chain(38), number, "auto", context(tmp_path))
    step = 1 / (len(block_ends(chain(38), cut_points(chain(38), (1, 8, 8)))) + 1)
    assert [place.share for place in places] == pytest.approx(SHARES[number], abs=step / 2 + 1e-9)


@pytest.mark.usefixtures("even")
def test_fewer_exits_where_the_model_has_no_room(tmp_path: Path) -> None:
    places = place_by_number(chain(2), 4, "auto", context(tmp_path))
    shares = [*(place.share for place in places), 1.0]
    assert 1 <= len(places) < 4
    assert all(later - earlier >= MIN_GAP - 1e-9 for earlier, later in pairwise(shares))
    assert len({place.name for place in places}) == len(places)


def test_the_time_of_the_heads_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half of the latency has passed at the second of three cuts; its head would answer at the very end."""
    graph = chain(3)
    _, first, second, third, *_ = block_ends(graph, cut_points(graph, (1, 8, 8)))
    ends = zip((first, second, third), (0.25, 0.5, 0.75), (0.05, 0.45, 0.0), strict=True)
    timed = [Spot(name=end.name, share=share, head=head) for end, share, head in ends]
    monkeypatch.setattr(placing, "timed_places", lambda *_: timed)
    assert place_by_number(graph, 1, "auto", context(tmp_path)) == [timed[0]]


def test_a_model_without_a_place_is_told(tmp_path: Path) -> None:
    graph = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).eval()
    with pytest.raises(StepFailed, match="no exit would answer"):
        place_by_number(graph, 2, "auto", context(tmp_path))


@pytest.mark.usefixtures("even")
def test_named_cuts_come_in_the_order_of_the_graph(tmp_path: Path) -> None:
    places = place_by_name(chain(3), ["_5", "_2"], "auto", context(tmp_path))
    assert [place.name for place in places] == ["_2", "_5"]
    with pytest.raises(StepFailed, match=r"'nowhere'.*_0, _1, _2"):
        place_by_name(chain(3), ["_2", "nowhere"], "auto", context(tmp_path))


def test_times_are_taken_on_the_exported_model(tmp_path: Path) -> None:
    """Of 8 equal blocks, 2, 4 and 6; convolutions of 0.1 ms and more, so that a call's own cost is small."""
    graph = chain(8, channels=64)
    places = place_by_name(graph, ["_5", "_9", "_13"], "auto", context(tmp_path))
    assert [place.share for place in places] == pytest.approx([0.25, 0.5, 0.75], abs=0.1)
    assert all(0 < place.head < 0.1 for place in places)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_timed_is_the_model_in_parts(
    batch: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every block is written and run once per round, however many points there are, on what came before."""
    graph, where = chain(6), context(tmp_path)
    where = dataclasses.replace(where, target=where.target.model_copy(update={"batch": batch}))
    opened, given = list[str](), list[np.ndarray]()
    open_, run = OnnxRuntime.open, OnnxRuntimeSession.run

    def counted(self: OnnxRuntime, file: Path, **kwargs: Any) -> OnnxRuntimeSession:
        opened.append(file.name)
        return open_(self, file, **kwargs)

    def kept(self: OnnxRuntimeSession, inputs: np.ndarray) -> np.ndarray:
        given.append(run(self, inputs))
        return given[-1]

    monkeypatch.setattr(OnnxRuntime, "open", counted)
    monkeypatch.setattr(OnnxRuntimeSession, "run", kept)
    points = block_ends(graph, cut_points(graph, (1, 8, 8)))
    timed_places(graph, points, "auto", where)
    assert len(opened) == len(set(opened)) == 2 * len(points) + 2
    inputs, _ = next(iter(where.data.batches("validation", batch)))
    np.testing.assert_allclose(given[len(points)], graph(inputs).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_parts_of_a_transformer_do_without_the_input(tmp_path: Path) -> None:
    """Its views ask for the batch of the input, which later parts do not have."""
    shape, where = (3, 16, 16), context(tmp_path)
    program = trace_shape(trained(Attention), shape)
    write_archive(program, tmp_path / "model.pt2")
    graph = to_modules(as_written(read_archive(tmp_path / "model.pt2")), shape)
    preprocessing = ImagePreprocessing(channels=3, height=16, width=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = where.original.spec.model_copy(update={"preprocessing": preprocessing})
    pictures = {"validation": (torch.randn(4, *shape), torch.zeros(4, dtype=torch.int64))}
    data = dataclasses.replace(where.data, splits=pictures)  # type: ignore[type-var]
    points = cut_points(graph, shape)
    assert any(is_size(node) for node in graph.graph.nodes)
    original = dataclasses.replace(where.original, spec=spec)
    places = timed_places(graph, points, "auto", dataclasses.replace(where, data=data, original=original))
    assert [place.name for place in places] == [point.name for point in points]
    shares = [place.share for place in places]
    assert shares == sorted(shares)


@pytest.mark.timeout(60)
def test_blocks_of_many_paths(tmp_path: Path) -> None:
    """2^25 paths lead through the block, as in a dense net; each of its tensors is looked at once."""

    class Braid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            y = x.sigmoid()
            for _ in range(25):
                x, y = torch.maximum(x, y), torch.minimum(x, y)
            logits: torch.Tensor = self.last((x - y).flatten(1))
            return logits

    graph = fx.symbolic_trace(Braid()).eval()
    points = cut_points(graph, (1, 8, 8))
    places = timed_places(graph, points, "linear", context(tmp_path))
    assert [place.name for place in places] == [point.name for point in points]
