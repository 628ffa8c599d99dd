"""The gate between a staged model and its one file: the same exits, the same logits, or no file."""

from pathlib import Path

import numpy as np

from workers.base import ExitPlan, Frozen
from workers.deploy.parity import TOLERANCE, Parity, compare
from workers.errors import GateFailed
from workers.exits.scores import leaving, leaving_together, planned_scores
from workers.runtimes.onnxruntime import OnnxRuntime

#: A score within rounding of its threshold may fall either way.
LEAST_SAME_EXIT = 0.999
BATCH = 8


class ExitParity(Frozen):
    """How far a file is from the segments it was made from."""

    samples: int
    #: Share of samples that take the same exit, one at a time.
    same_exit: float
    #: Share of batches of 8 that leave where all their rows are sure.
    same_exit_together: float
    #: Largest difference of a logit among those with the same exit, relative to the largest logit.
    logit_error: float

    @property
    def plain(self) -> Parity:
        """As for a file without exits."""
        return Parity(samples=self.samples, logit_error=self.logit_error, same_answer=self.same_exit)


def check_exits(file: Path, inputs: np.ndarray, logits: np.ndarray, plan: ExitPlan) -> ExitParity:
    """Compare on real inputs (N, C, H, W).

    logits: (N, exits + 1, classes), what the staged model gives for them at every exit and the end.
    Raises GateFailed.
    """
    assert plan.thresholds is not None, "the plan is not calibrated"
    scores = planned_scores(plan, logits)
    got, taken = _run(file, inputs, 1)
    expected = leaving(scores, plan.thresholds)
    same = taken == expected
    parity = compare(logits[same, expected[same] - 1], got[same])
    _, together = _run(file, inputs, BATCH)
    found = ExitParity(
        samples=len(inputs),
        same_exit=float(same.mean()),
        same_exit_together=float((together == leaving_together(scores, plan.thresholds, BATCH)).mean()),
        logit_error=parity.logit_error,
    )
    if (
        found.same_exit < LEAST_SAME_EXIT
        or found.same_exit_together < 1
        or found.logit_error > TOLERANCE
        or parity.same_answer < 1
    ):
        raise GateFailed(
            file.name,
            f"differs from the model it was made from, on {found.samples} samples: {1 - found.same_exit:.2%} "
            f"take another exit one at a time, {1 - found.same_exit_together:.2%} in batches of {BATCH}; "
            f"logits differ by {found.logit_error:.2%}, {1 - parity.same_answer:.2%} of the answers.",
            "Nothing was handed out. Please report the model's architecture and the versions of "
            "torch, onnx and onnxruntime.",
        )
    return found


def _run(file: Path, inputs: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    session = OnnxRuntime().open(file, threads=1)
    outputs = [session.outputs(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    logits, taken = zip(*outputs, strict=True)
    return np.concatenate(logits), np.concatenate(taken)
