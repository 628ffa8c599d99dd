"""The gate between a staged model and its one file: the same exits, the same logits, or no file."""

import math
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from workers.base import ExitPlan, Frozen
from workers.deploy.parity import TOLERANCE, Parity, compare
from workers.errors import GateFailed
from workers.exits.scores import leaving, leaving_together, never, planned_scores
from workers.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeSession
from workers.turns import training_turn

LEAST_SAME_EXIT = 0.999
#: A score this near to its threshold falls either way by rounding alone: such a sample may take either exit.
TIE = 1e-5
BATCH = 8
#: So many are compared however long that takes, where there are so many.
LEAST_SAMPLES = 1024


class ExitParity(Frozen):
    """How far a file is from the segments it was made from."""

    samples: int
    #: Share of samples that take the same exit, one at a time; ties count as the same.
    same_exit: float
    #: Share of batches of 8 that leave where all their rows are sure, or that have a tie.
    same_exit_together: float
    #: Largest difference of a logit among those with the same exit, relative to the largest logit.
    logit_error: float

    @property
    def plain(self) -> Parity:
        """As for a file without exits."""
        return Parity(samples=self.samples, logit_error=self.logit_error, same_answer=self.same_exit)


def check_exits(
    file: Path,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    plan: ExitPlan,
    *,
    seconds: float = math.inf,
) -> ExitParity:
    """Compare on real inputs (N, C, H, W), given with what the staged model says about them.

    That is (N, exits + 1, classes): logits of every exit and of the end. seconds: after these no more than
    LEAST_SAMPLES are compared. Raises GateFailed.
    """
    assert plan.thresholds is not None, "the plan is not calibrated"
    session, start, samples = OnnxRuntime().open(file, threads=1), time.monotonic(), 0
    found: list[tuple[np.ndarray, ...]] = []
    for inputs, logits in batches:
        with training_turn():  # not timed, but it would disturb another job's timing
            found.append(_compared(session, inputs, logits, plan))
        samples += len(inputs)
        if samples >= LEAST_SAMPLES and time.monotonic() - start > seconds:
            break
    if not found:
        raise GateFailed(
            file.name,
            "there is no sample to compare it on: each has a score so close to a threshold that rounding "
            "decides where it leaves.",
            "Nothing was handed out. Choose thresholds that lie further from the scores.",
        )
    same, tied, same_together, expected, got = map(np.concatenate, zip(*found, strict=True))
    parity = compare(expected[same], got[same])
    return _passed(
        file,
        ExitParity(
            samples=samples,
            same_exit=float((same | tied).mean()),
            same_exit_together=float(same_together.mean()),
            logit_error=parity.logit_error,
        ),
        parity.same_answer,
    )


def _passed(file: Path, found: ExitParity, same_answer: float) -> ExitParity:
    if (
        found.same_exit < LEAST_SAME_EXIT
        or found.same_exit_together < 1
        or found.logit_error > TOLERANCE
        or same_answer < 1
    ):
        raise GateFailed(
            file.name,
            f"differs from the model it was made from, on {found.samples} samples: {1 - found.same_exit:.2%} "
            f"take another exit one at a time, {1 - found.same_exit_together:.2%} in batches of {BATCH}; "
            f"logits differ by {found.logit_error:.2%}, {1 - same_answer:.2%} of the answers.",
            "Nothing was handed out. Please report the model's architecture and the versions of "
            "torch, onnx and onnxruntime.",
        )
    return found


def _compared(
    session: OnnxRuntimeSession, inputs: np.ndarray, logits: np.ndarray, plan: ExitPlan
) -> tuple[np.ndarray, ...]:
    """(N,) the same exit alone, (N,) a tie, (N,) the same in batches or a tie there; (N, classes) logits of
    the exit that is right to take, and those that the file gives."""
    assert plan.thresholds is not None
    scores = planned_scores(plan, logits)
    got, taken = _run(session, inputs, 1)
    expected = leaving(scores, plan.thresholds)
    _, together = _run(session, inputs, BATCH)
    tied = _tied(scores, plan)
    starts = np.arange(0, len(inputs), BATCH)
    tied_together = np.repeat(np.logical_or.reduceat(tied, starts), BATCH)[: len(inputs)]
    return (
        taken == expected,
        tied,
        (together == leaving_together(scores, plan.thresholds, BATCH)) | tied_together,
        logits[np.arange(len(logits)), expected - 1],
        got,
    )


def _tied(scores: np.ndarray, plan: ExitPlan) -> np.ndarray:
    """(N,) True where the score of an exit is next to its threshold, unless no score is beyond that."""
    thresholds = np.asarray(plan.thresholds)
    near = (np.abs(scores - thresholds) < TIE) & (thresholds < never(plan.score, len(thresholds)))
    return np.asarray(near.any(axis=1) & (plan.score != "patience"))  # which counts answers


def _run(session: OnnxRuntimeSession, inputs: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    outputs = [session.outputs(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    logits, taken = zip(*outputs, strict=True)
    return np.concatenate(logits), np.concatenate(taken)
