"""The executor against running everything to the end and choosing afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.staged import PLAN, parts, plan, samples
from workers.base import ExitPlan
from workers.exits.executor import Executor, Segment, all_logits, onnx_segments, torch_segments
from workers.exits.scores import Score, leaving, planned_scores

INPUTS = samples(60)


@pytest.fixture(params=["torch", "onnx"])
def segments(request: pytest.FixtureRequest, segment_files: list[Path]) -> list[Segment]:
    return torch_segments(parts()) if request.param == "torch" else onnx_segments(segment_files, threads=1)


@pytest.mark.parametrize("score", ["probability", "entropy", "margin", "patience"])
@pytest.mark.parametrize("batch", [1, 7, 60])
def test_every_row_gets_the_logits_of_its_own_exit(segments: list[Segment], score: Score, batch: int) -> None:
    logits = all_logits(segments, [INPUTS])
    expected = leaving(planned_scores(plan(score), logits), plan(score).thresholds or ())
    assert len(set(expected)) == (2 if score == "patience" else 3)  # nobody agrees at exit 1
    executor = Executor(segments, plan(score))
    parts_ = [executor.decide(INPUTS[start : start + batch]) for start in range(0, 60, batch)]
    got, taken = (np.concatenate(part) for part in zip(*parts_, strict=True))
    assert taken.dtype == np.int64
    np.testing.assert_array_equal(taken, expected)
    np.testing.assert_allclose(got, logits[np.arange(60), expected - 1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(executor.run(INPUTS), got, rtol=1e-4, atol=1e-5)


def counted(segments: Sequence[Segment], seen: list[int]) -> list[Segment]:
    def count(segment: Segment) -> Segment:
        def call(inputs: Any) -> tuple[np.ndarray, Any]:
            seen.append(len(inputs))
            return segment(inputs)

        return call

    return [count(segment) for segment in segments]


def test_only_the_undecided_go_on(segments: list[Segment]) -> None:
    seen: list[int] = []
    _, taken = Executor(counted(segments, seen), PLAN).decide(INPUTS)
    assert seen == [60, (taken > 1).sum(), (taken > 2).sum()]
    early = INPUTS[taken == 1]
    seen.clear()
    Executor(counted(segments, seen), PLAN).decide(early)
    assert seen == [len(early)]


def test_a_sure_row_takes_no_unsure_row_along(segments: list[Segment]) -> None:
    _, alone = Executor(segments, PLAN).decide(INPUTS)
    sure, unsure = INPUTS[alone == 1][:1], INPUTS[alone == 3][:1]
    for pair, expected in (([sure, unsure], [1, 3]), ([unsure, sure], [3, 1])):
        np.testing.assert_array_equal(Executor(segments, PLAN).decide(np.concatenate(pair))[1], expected)


def test_patience_goes_on_counting_for_those_who_stay() -> None:
    """Row 0 leaves at exit 2; row 1 answers 0, 1, 1, 1 and row 2 answers 0, 1, 2, 2."""
    answers = np.array([[2, 2, 9, 9], [0, 1, 1, 1], [0, 1, 2, 2]])

    def segment(number: int) -> Segment:
        return lambda rows: (np.eye(10, dtype=np.float32)[answers[rows, number]], rows)

    patient = ExitPlan(cuts=("a", "b", "c"), score="patience", thresholds=(1, 1, 1))
    logits, taken = Executor([segment(number) for number in range(4)], patient).decide(np.arange(3))
    np.testing.assert_array_equal(taken, [2, 3, 4])
    np.testing.assert_array_equal(logits.argmax(axis=1), [2, 1, 2])


def test_logits_that_are_no_numbers_never_leave_early() -> None:
    def broken(inputs: Any) -> tuple[np.ndarray, Any]:
        return np.full((len(inputs), 3), np.nan, np.float32), inputs

    _, taken = Executor([broken, broken, broken], PLAN).decide(INPUTS[:2])
    np.testing.assert_array_equal(taken, [3, 3])


def test_pytorch_and_onnx_agree(segment_files: list[Path]) -> None:
    ours, theirs = (
        all_logits(torch_segments(parts()), [INPUTS]),
        all_logits(onnx_segments(segment_files, threads=1), [INPUTS]),
    )
    assert ours.shape == (60, 3, 3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    with torch.no_grad():  # and with the plain modules
        first = parts()[0](torch.from_numpy(INPUTS))[0]
    np.testing.assert_allclose(ours[:, 0], first, rtol=1e-4, atol=1e-5)
