"""The way from segments to a calibrated file; what the report says is what plain onnxruntime gives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tests.support.arrays import ArrayData
from tests.support.staged import CLASSES, PLAN, SPEC, parts, samples
from workers.base import Bench, ExitPlan, Split, Target
from workers.calibration import calibrate as module
from workers.calibration import checking
from workers.calibration.calibrate import Calibration, ExitsReport, calibrate
from workers.calibration.moving import mean_latency
from workers.calibration.path_times import Paths
from workers.deploy.one_file import set_thresholds
from workers.errors import GateFailed
from workers.exits.executor import Segment, all_logits, torch_segments
from workers.exits.temperature import fit_temperatures
from workers.exits.thresholds import answers_to
from workers.runtimes.onnxruntime import OnnxRuntime

UNCALIBRATED = ExitPlan(cuts=PLAN.cuts)
SIZES: dict[Split, int] = {"calibration": 200, "validation": 600, "test": 200}
PATH_MS = (1.0, 2.0, 3.0)
INTERVALS = (0.9, 1.2), (1.9, 2.2), (2.9, 3.2)


def labelled(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from what the end believes: it is right more often than the exits, and not always."""
    inputs = samples(size, seed)
    logits = all_logits(torch_segments(parts()), [inputs])[:, -1]
    drawn = logits + np.random.default_rng(seed).gumbel(size=logits.shape)
    return torch.from_numpy(inputs), torch.from_numpy(drawn.argmax(axis=1))


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return ArrayData({split: labelled(n, size) for n, (split, size) in enumerate(SIZES.items())}, CLASSES)


@pytest.fixture
def bench(data: ArrayData) -> Bench:
    return Bench(data, OnnxRuntime(), Target(host="here"), lambda _: None)


@pytest.fixture(autouse=True)
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the same thresholds come out every time."""
    monkeypatch.setattr(module, "time_paths", lambda *_, **__: Paths(PATH_MS, INTERVALS, 4.0, INTERVALS))


def calibrated(
    files: list[Path],
    folder: Path,
    bench: Bench,
    confidence: float | None = None,
    staged: Sequence[nn.Module] | None = None,
    max_drop: float = 2.0,
) -> Calibration:
    return calibrate(
        files,
        UNCALIBRATED.model_copy(update={"max_drop": max_drop, "confidence": confidence}),
        folder / "model.onnx",
        SPEC,
        bench,
        staged=None if staged is None else torch_segments(staged),
        seconds=0.02,
    )


@pytest.mark.parametrize("kind", ["segment_files", "int8_files"])
def test_the_file_does_what_the_report_says(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, bench: Bench, data: ArrayData
) -> None:
    found = calibrated(request.getfixturevalue(kind), tmp_path, bench)
    session = ort.InferenceSession(tmp_path / "model.onnx")
    images, labels = (part.numpy() for part in data.splits["validation"])
    answers = [session.run(["logits", "exit"], {"input": image[None]}) for image in images]
    right = np.array([logits.argmax() for logits, _ in answers]) == labels
    taken = np.array([int(exit_[0]) for _, exit_ in answers])
    report = found.report
    assert report.accuracy == right.mean()
    assert report.share == tuple((taken == number).mean() for number in (1, 2, 3))
    assert report.mean_ms == pytest.approx(taken.mean())
    assert report.accuracy >= report.full_accuracy - 0.02
    assert report.share[0] > 0.05
    set_thresholds(tmp_path / "model.onnx", (report.never,) * 2)
    session = ort.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(["logits"], {"input": images})
    assert report.full_accuracy == (logits.argmax(axis=1) == labels).mean()


def test_the_mean_has_the_interval_of_its_paths(
    segment_files: list[Path], tmp_path: Path, bench: Bench
) -> None:
    """By hand: every path may be 0.1 less or 0.2 more, all of them together."""
    report = calibrated(segment_files, tmp_path, bench).report
    mean, ratio = mean_latency(report)
    assert (mean.low, mean.high) == pytest.approx((report.mean_ms - 0.1, report.mean_ms + 0.2))
    assert (ratio.value, ratio.low) == pytest.approx((report.mean_ms / 4, report.mean_ms - 0.1))
    of_before = report.model_dump(exclude={"path_intervals_ms", "ratio_intervals"})
    assert [m.low for m in mean_latency(ExitsReport.model_validate(of_before))] == [None, None]


def test_temperatures_are_fitted_on_the_calibration_split(
    segment_files: list[Path], tmp_path: Path, bench: Bench, data: ArrayData
) -> None:
    found = calibrated(segment_files, tmp_path, bench, staged=parts())
    images, labels = (part.numpy() for part in data.splits["calibration"])
    expected = fit_temperatures(all_logits(torch_segments(parts()), [images]), labels)
    assert found.plan.temperatures == pytest.approx(expected, rel=1e-3)
    assert found.plan.temperatures == found.report.temperatures
    assert found.plan.cuts == PLAN.cuts


def test_the_test_split_decides_nothing(
    segment_files: list[Path], tmp_path: Path, bench: Bench, data: ArrayData
) -> None:
    before = calibrated(segment_files, tmp_path, bench, confidence=0.9, max_drop=5).plan
    other = replace(data, splits={**data.splits, "test": labelled(77, 150)})
    after = calibrated(segment_files, tmp_path, replace(bench, data=other), confidence=0.9, max_drop=5).plan
    assert after == before


def test_what_the_explorer_needs_is_in_the_npz(
    segment_files: list[Path], tmp_path: Path, bench: Bench
) -> None:
    found = calibrated(segment_files, tmp_path, bench)
    found.keep_logits(tmp_path / "exits.npz")
    kept = np.load(tmp_path / "exits.npz")
    assert set(kept) == {
        f"{split}_{what}" for split in ("validation", "test") for what in ("logits", "labels")
    }
    assert kept["test_logits"].shape == (200, 3, 3)
    answers = answers_to(kept["validation_labels"], kept["validation_logits"], found.plan, PATH_MS)
    point = answers.of(found.report.thresholds)
    assert (point.accuracy, point.share) == (found.report.accuracy, found.report.share)


def test_the_report_is_json_and_comes_back(segment_files: list[Path], tmp_path: Path, bench: Bench) -> None:
    report = calibrated(segment_files, tmp_path, bench, confidence=0.9).report
    assert ExitsReport.model_validate_json(report.model_dump_json()) == report
    assert [times.batch for times in report.batches] == [1, 8, 32]
    assert str(tmp_path) not in report.model_dump_json()


def test_a_file_that_differs_from_the_staged_model_is_not_handed_out(
    segment_files: list[Path], tmp_path: Path, bench: Bench
) -> None:
    other = parts()
    other[1].linear.weight.data *= -1
    with pytest.raises(GateFailed):
        calibrated(segment_files, tmp_path, bench, staged=other)


def lying_after(count: int) -> list[Segment]:
    """The network, but after so many samples its first exit says something else."""
    first, *rest = torch_segments(parts())
    seen = 0

    def called(inputs: np.ndarray) -> tuple[np.ndarray, Any]:
        nonlocal seen
        seen += len(inputs)
        logits, hidden = first(inputs)
        return (logits if seen <= count else -logits), hidden

    return [called, *rest]


@pytest.fixture
def many(bench: Bench, data: ArrayData) -> Bench:
    return replace(bench, data=replace(data, splits={**data.splits, "validation": labelled(1, 1280)}))


def test_every_validation_sample_is_compared(segment_files: list[Path], tmp_path: Path, many: Bench) -> None:
    """Fails when the gate ends after the first thousand."""
    file, plan = tmp_path / "model.onnx", UNCALIBRATED.model_copy(update={"max_drop": 2.0})
    found = calibrate(segment_files, plan, file, SPEC, many, staged=lying_after(1280), seconds=0.02).report
    assert found.parity.samples == 1280
    assert not any("was compared" in note for note in found.notes)
    with pytest.raises(GateFailed, match="on 1280 samples"):
        calibrate(segment_files, plan, file, SPEC, many, staged=lying_after(1216), seconds=0.02)


def test_where_time_runs_out_the_report_says_how_many_were_compared(
    segment_files: list[Path], tmp_path: Path, many: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "GATE_SECONDS", 0.0)
    found = calibrated(segment_files, tmp_path, many).report
    assert found.parity.samples == 1024
    assert "on 1,024 of 1,280 validation samples" in found.notes[-1]


def test_the_promise_stands_in_the_notes(segment_files: list[Path], tmp_path: Path, bench: Bench) -> None:
    kept = calibrated(segment_files, tmp_path, bench, confidence=0.9, max_drop=8).report
    assert kept.guarantee is not None
    assert kept.guarantee.samples == 300
    assert kept.guarantee.thresholds == kept.thresholds
    assert kept.notes[0].startswith("With 90 % confidence at most 8 % of the answers get worse")
    few = calibrated(segment_files, tmp_path, bench, confidence=0.9, max_drop=0.5).report
    assert few.guarantee is not None
    assert few.guarantee.thresholds is None
    assert "at least 460 are needed" in few.notes[0]
    assert "without that promise" in few.notes[1]
    assert few.accuracy >= few.full_accuracy - 0.005
