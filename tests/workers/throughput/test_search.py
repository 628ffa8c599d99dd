"""Visits to real sessions and to sessions whose time is known."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workers import turns
from workers.base import Runtime, Session
from workers.errors import ModelRefused
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.throughput.grid import Cell, Grid
from workers.throughput.search import measure_grid, possible_batches
from workers.throughput.streams import opened

SAMPLES = np.random.default_rng(0).normal(size=(48, 256)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))


class Sleeping(Runtime):
    """A call takes as long as it is told, and takes no processor: streams do not hinder each other."""

    title, package, install = "Sleeping", "numpy", ""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.seconds = seconds

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> Session:  # noqa: ARG002
        seconds = self.seconds

        class Opened(Session):
            def run(self, inputs: np.ndarray) -> np.ndarray:
                time.sleep(seconds(threads, len(inputs)))
                return np.zeros((len(inputs), 2))

        return Opened()


class Failing(Sleeping):
    """No session opens on two threads; nobody says why."""

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> Session:
        if threads == 2:
            raise MemoryError
        return super().open(file, threads=threads, optimize=optimize)


def by_way(cells: tuple[Cell, ...]) -> dict[tuple[int, int, int], Cell]:
    return {(cell.way.streams, cell.way.threads, cell.way.batch): cell for cell in cells}


def test_rates_of_known_calls_add_up_over_streams_and_samples() -> None:
    """2 ms a call and a batch of b: b / 2 ms, twice that with two streams.

    A busy neighbour makes calls longer, never shorter: their length need only be right in one of three tries.
    """
    grids = (
        measure_grid(Sleeping(lambda *_: 0.002), Path(), SAMPLES, cores=2, seconds=1.5) for _ in range(3)
    )
    assert any(map(_adds_up, grids))


def _adds_up(grid: Grid) -> bool:
    found = by_way(grid.cells)
    assert len(found) == 18
    assert (grid.notes, grid.cores) == ((), 2)
    as_long = []
    for (streams, _, batch), cell in found.items():
        ideal = streams * batch / 0.002
        assert cell.samples_per_s <= ideal
        assert cell.low <= cell.samples_per_s <= cell.high
        assert cell.p50_ms >= 2
        as_long.append(cell.p50_ms < 5 and cell.samples_per_s > 0.6 * ideal)
    return all(as_long)


def test_a_p99_comes_with_662_calls_and_not_before() -> None:
    grid = measure_grid(Sleeping(lambda *_: 0), Path(), SAMPLES, cores=1, seconds=1.0)
    assert all((cell.p99_ms is None) == (cell.calls < 662) for cell in grid.measured)
    assert any(cell.p99_ms is not None for cell in grid.measured)


def test_time_left_goes_to_cells_that_may_be_best() -> None:
    """Time grows faster than the batch: batch 1 is best under every limit, the others under none."""
    grid = measure_grid(Sleeping(lambda _, batch: 0.001 * batch**2), Path(), SAMPLES, cores=1, seconds=6)
    found = by_way(grid.cells)
    assert found[1, 1, 1].calls > 10 * found[1, 1, 4].calls
    assert found[1, 1, 32].calls == 4  # two visits


def test_what_the_budget_does_not_reach_is_not_measured() -> None:
    grid = measure_grid(Sleeping(lambda *_: 0.05), Path(), SAMPLES, cores=2, seconds=0.3)
    unseen = [cell for cell in grid.cells if not cell.calls]
    assert 0 < len(unseen) < len(grid.cells) == 18
    assert all(cell.samples_per_s == 0 for cell in unseen)
    assert grid.notes == (f"{len(unseen)} of 18 cells were not reached within 0.3 seconds.",)


def matrix(path: Path, batch: int | str = "N", *, rows: int = -1) -> Path:
    """input (batch, 256) -> reshaped to (rows, 256) -> times a square matrix, eight times over."""
    weight = numpy_helper.from_array(np.eye(256, dtype=np.float32), "weight")
    shape = numpy_helper.from_array(np.array([rows, 256]), "shape")
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{n}", "weight"], [f"x{n + 1}"]) for n in range(8)]
    nodes.append(helper.make_node("Identity", ["x8"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 256])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 256])],
        [weight, shape],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_one_sample_on_one_thread_agrees_with_its_latency(tmp_path: Path) -> None:
    """Against a plain loop on the same file, by a wide margin: neighbours are at work."""
    file = matrix(tmp_path / "net.onnx")
    cell = by_way(measure_grid(OnnxRuntime(), file, SAMPLES, cores=1, seconds=1.0).cells)[1, 1, 1]
    session = OnnxRuntime().open(file, threads=1)
    times = []
    for number in range(300):
        start = time.perf_counter()
        session.run(SAMPLES[number % 48][None])
        times.append(time.perf_counter() - start)
    assert 0.2 < cell.samples_per_s * float(np.mean(times)) < 5


@pytest.mark.parametrize(
    ("batch", "rows", "takes", "refuses"),
    [("N", -1, [1, 2, 4, 8, 16, 32], []), (4, -1, [4], [1, 2, 8, 16, 32]), ("N", 1, [1], [2, 4, 8, 16, 32])],
    ids=["dynamic", "fixed", "fixed inside"],
)
def test_batches_are_what_the_file_takes(
    tmp_path: Path, batch: int | str, rows: int, takes: list[int], refuses: list[int]
) -> None:
    file = matrix(tmp_path / "net.onnx", batch, rows=rows)
    found, notes = possible_batches(OnnxRuntime(), file, SAMPLES)
    assert found == takes
    assert [", ".join(map(str, refuses)) in note for note in notes] == [True] * bool(refuses)


def test_a_file_that_runs_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="runs no batch"):
        measure_grid(OnnxRuntime(), matrix(tmp_path / "net.onnx", 3), SAMPLES, cores=1, seconds=0.1)


def test_cells_that_fail_are_left_out_and_the_others_measured() -> None:
    def seconds(_: int, batch: int) -> float:
        if batch == 8:
            raise RuntimeError("no room for it\nin detail")
        return 0.001

    grid = measure_grid(Sleeping(seconds), Path(), SAMPLES, cores=2, seconds=4.0)
    assert {cell.way.batch for cell in grid.cells if not cell.calls} == {8}
    (note,) = grid.notes
    assert note.startswith("3 of 18 cells are left out, since calls failed. ")
    assert note.endswith(", batch 8: no room for it")


def test_sessions_that_do_not_open_cost_only_their_cells() -> None:
    grid = measure_grid(Failing(lambda *_: 0.001), Path(), SAMPLES, cores=2, seconds=3.0)
    assert {cell.way.threads for cell in grid.cells if not cell.calls} == {2}
    assert len(grid.measured) == 12
    assert grid.notes == (
        "6 of 18 cells are left out, since calls failed. 1 stream × 2 threads, batch 1: MemoryError",
    )


def test_a_file_of_which_every_cell_fails_is_refused() -> None:
    tried: list[int] = []

    def seconds(_: int, batch: int) -> float:
        tried.append(batch)
        if len(tried) > 2:  # once it was found out which batches it takes
            raise RuntimeError("gone")
        return 0

    with pytest.raises(ModelRefused, match=r"runs in no way\. 1 stream × 1 thread, batch 1: gone"):
        measure_grid(Sleeping(seconds), Path(), SAMPLES, cores=1, seconds=1.0)


def test_of_several_streams_the_one_that_failed_says_why() -> None:
    """The others only say that they waited for it in vain."""

    class Opened(Session):
        def __init__(self, works: bool) -> None:
            self.works = works

        def run(self, inputs: np.ndarray) -> np.ndarray:
            if not self.works:
                time.sleep(0.05)  # the other one waits already
                raise ValueError("out of memory")
            return inputs

    sessions = iter([Opened(works=True), Opened(works=False)])
    with opened(lambda: next(sessions), 1, 2) as ready, pytest.raises(ValueError, match="out of memory"):
        ready.visit(SAMPLES, 1, 0.01)


def test_an_error_without_a_word_is_called_by_its_name() -> None:
    def seconds(_: int, batch: int) -> float:
        if batch > 1:
            raise RuntimeError
        return 0

    found, (note,) = possible_batches(Sleeping(seconds), Path(), SAMPLES)
    assert found == [1]
    assert note.endswith(": RuntimeError")
