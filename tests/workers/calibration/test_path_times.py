"""A runtime of known speed reads the thresholds of real files: what was forced and summed is checked."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.support.arrays import ArrayData
from tests.support.staged import CLASSES, PLAN, SPEC
from workers.base import Bench, Session, Target
from workers.calibration import path_times
from workers.calibration.path_times import time_batches, time_paths, time_stream
from workers.deploy.one_file import compose_one_file, set_thresholds
from workers.exits.executor import Segment
from workers.runtimes.onnxruntime import OnnxRuntime

STEP_S = 0.0002
SCORES = np.random.default_rng(0).random(70).astype(np.float32)


@dataclass
class PretendedSession(Session):
    """Each exit costs a step; a sample's score is its first number. Opened at other thresholds than 0 and the
    ends of the range it takes `slower` longer."""

    thresholds: list[float]
    slower: float

    def outputs(self, inputs: np.ndarray) -> list[np.ndarray]:
        least = inputs[:, 0, 0, 0].min()
        taken = next((n for n, t in enumerate(self.thresholds, 1) if least > t), len(self.thresholds) + 1)
        forced = set(self.thresholds) <= {path_times.ALWAYS, 1.0}
        end = time.perf_counter() + taken * STEP_S * (1 if forced else self.slower)
        while time.perf_counter() < end:
            pass
        return [np.zeros((len(inputs), 3), np.float32), np.full(len(inputs), taken)]

    def run(self, inputs: np.ndarray) -> np.ndarray:
        return self.outputs(inputs)[0]


@pytest.fixture
def slower(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> float:
    factor = float(getattr(request, "param", 1.0))

    class Pretended(OnnxRuntime):
        def open(self, file: Path, *, threads: int, optimize: bool = True) -> PretendedSession:  # type: ignore[override] # noqa: ARG002
            tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
            return PretendedSession([float(tensors[f"exit_{number}_threshold"]) for number in (1, 2)], factor)

    monkeypatch.setattr(path_times, "OnnxRuntime", Pretended)
    return factor


@pytest.fixture
def bench() -> Bench:
    images = torch.zeros(70, 1, 8, 8)
    images[:, 0, 0, 0] = torch.from_numpy(SCORES)
    data = ArrayData({"validation": (images, torch.zeros(70, dtype=torch.int64))}, CLASSES)
    return Bench(data, OnnxRuntime(), Target(host="here"), lambda _: None)


@pytest.fixture
def file(segment_files: list[Path], tmp_path: Path) -> Path:
    compose_one_file(segment_files, PLAN, tmp_path / "model.onnx", SPEC, CLASSES)
    return tmp_path / "model.onnx"


@pytest.mark.usefixtures("slower")
def test_every_path_is_timed_alone(file: Path, bench: Bench) -> None:
    before = file.read_bytes()
    found = time_paths(file, 2, PLAN, bench, baseline=file, seconds=0.1)
    assert found.path_ms == pytest.approx([0.2, 0.4, 0.6], rel=0.1)
    assert found.baseline_ms is not None
    assert len(found.intervals) == len(found.ratios) == 3
    for ms, (low, high), (least, most) in zip(found.path_ms, found.intervals, found.ratios, strict=True):
        assert low <= ms <= high
        assert least <= ms / found.baseline_ms <= most
    assert file.read_bytes() == before


@pytest.mark.usefixtures("slower")
def test_the_mix_and_the_stream_agree(file: Path, bench: Bench) -> None:
    found = time_stream(file, 2, PLAN, bench, seconds=0.5)
    early, middle = (SCORES > 0.7), (SCORES > 0.6)
    share = np.array([early.mean(), (middle & ~early).mean(), (~middle).mean()])
    np.testing.assert_allclose(found.share, share, atol=0.1)  # of the samples that the stream came to
    assert found.mix_ms == pytest.approx(np.dot(found.share, found.path_ms))
    assert found.stream.mean_ms == pytest.approx(found.mix_ms, rel=0.1)
    assert found.stream.calls >= 8 * path_times.LEAST_STREAM
    assert 0.59 < found.stream.p50_ms <= found.stream.p90_ms
    assert (found.stream.p99_ms is None) == (found.stream.calls < 662)


@pytest.mark.parametrize("slower", [1.2], indirect=True)
def test_a_stream_that_its_paths_do_not_explain_is_marked(slower: float, file: Path, bench: Bench) -> None:
    found = time_stream(file, 2, PLAN, bench, seconds=0.1)
    assert found.stream.mean_ms == pytest.approx(slower * found.mix_ms, rel=0.1)
    assert "paths disagree" in found.marks


@pytest.mark.usefixtures("slower")
def test_batches_by_the_full_path_by_the_file_and_by_the_executor(
    file: Path, segment_files: list[Path], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(files: list[Path], *, threads: int) -> list[Segment]:  # noqa: ARG001
        return [lambda inputs: (np.zeros((len(inputs), 3), np.float32), inputs)] * 3

    monkeypatch.setattr(path_times, "onnx_segments", opened)
    set_thresholds(file, (0.0, 0.0))  # everyone is sure at once
    bench = Bench(bench.data, bench.runtime, Target(host="here", batch=8), bench.tell)
    found = time_batches(file, segment_files, PLAN, bench, seconds=0.1)
    assert found.batch == 8
    assert found.full.mean_ms == pytest.approx(0.6, rel=0.1)
    assert found.file.mean_ms == pytest.approx(0.2, rel=0.15)
    assert found.executor.mean_ms < 0.5
    assert found.full.calls == found.file.calls == found.executor.calls >= 40


@pytest.mark.usefixtures("slower")
def test_a_fast_file_has_a_p99_and_a_slow_one_does_not(
    file: Path, segment_files: list[Path], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails while the rounds of all sittings come to fewer than 662."""
    monkeypatch.setitem(globals(), "STEP_S", 0.00002)
    found = time_batches(file, segment_files, PLAN, bench, seconds=10)
    for spread in (found.full, found.file, found.executor):
        assert spread.calls >= 662
        assert spread.p99_ms is not None
        assert spread.p99_ms >= spread.p90_ms
    stream = time_stream(file, 2, PLAN, bench, seconds=10).stream
    assert stream.calls >= 662
    assert stream.p99_ms is not None
    slow = time_batches(file, segment_files, PLAN, bench, seconds=0)
    assert slow.full.calls < 662
    assert slow.full.p99_ms is None


def test_the_times_of_a_real_file(file: Path, segment_files: list[Path], bench: Bench) -> None:
    path_ms = time_paths(file, 2, PLAN, bench, seconds=0.05).path_ms
    assert len(path_ms) == 3
    assert all(0 < ms < 50 for ms in path_ms)
    found = time_batches(file, segment_files, PLAN, bench, seconds=0.05)
    assert found.file.mean_ms > 0
