"""Other thresholds for a file with exits, from what its calibration kept: nothing is trained or exported
again, and only a stream of samples is timed.

Accuracy is counted on the kept logits, sample by sample; the mean latency is that of the ways out, weighted
by how many samples take them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from workers.base import ExitPlan, Measurement, Split
from workers.calibration.calibrate import ExitsReport
from workers.calibration.path_times import Interval, PathTimes
from workers.deploy.exit_parity import ExitParity
from workers.exits.scores import leaving
from workers.exits.thresholds import Answers, answers_to
from workers.measures.accuracy import SPLITS, accuracy_of

FROM_PATHS, FROM_LOGITS = "from path times", "from exit logits"
#: Two scores this close may change places when logits are kept with half the digits.
ROUNDING = 2e-3
SET_LATER = (
    "These thresholds were set after calibration: accuracy is counted on the kept logits, and the mean "
    "latency comes from the path times."
)
NO_STREAM = (
    "No stream was timed: the path times are those of another machine, or of another version of ONNX Runtime."
)
NO_PROMISE = "Moved thresholds carry no promise."


@dataclass(frozen=True)
class KeptExits:
    """A report, and per split (N, exits + 1, classes) logits of all exits and the end, and (N,) labels."""

    report: ExitsReport
    logits: dict[Split, np.ndarray]
    labels: dict[Split, np.ndarray]

    @cached_property
    def plan(self) -> ExitPlan:
        report = self.report
        return ExitPlan.model_validate(
            {
                "cuts": report.cuts, "score": report.score, "max_drop": report.max_drop,
                "temperatures": report.temperatures, "thresholds": report.thresholds,
            }
        )  # fmt: skip

    @cached_property
    def answers(self) -> dict[Split, Answers]:
        return {
            split: answers_to(self.labels[split], logits, self.plan, self.report.path_ms)
            for split, logits in self.logits.items()
        }

    @cached_property
    def guesses(self) -> dict[Split, np.ndarray]:
        """Per split (N, exits + 1): the class that each exit and the end says."""
        return {split: logits.argmax(axis=-1) for split, logits in self.logits.items()}

    def given(self, split: Split, thresholds: Sequence[float]) -> np.ndarray:
        """(N,) the answers at these thresholds."""
        taken = leaving(self.answers[split].scores, tuple(thresholds))
        return np.asarray(self.guesses[split][np.arange(len(taken)), taken - 1])

    def clear_of(self, thresholds: Sequence[float]) -> np.ndarray:
        """(N,) bool, of validation: no rounding of the kept logits decides where the sample leaves."""
        if self.logits["validation"].dtype != np.float16 or self.report.score == "patience":
            return np.ones(len(self.labels["validation"]), bool)
        distance = np.abs(self.answers["validation"].scores - np.asarray(thresholds, np.float32))
        return np.asarray((distance > ROUNDING).all(axis=1))

    def moved(
        self,
        thresholds: Sequence[float],
        parity: ExitParity,
        times: PathTimes | None,
        told: tuple[str, ...] = (),
    ) -> ExitsReport:
        """The report of the same file with these thresholds. told: what else a reader should know of it."""
        point = self.answers["validation"].of(tuple(thresholds))
        promised = self.report.guarantee
        return self.report.model_copy(
            update={
                "thresholds": point.thresholds,
                "share": point.share,
                "accuracy": point.accuracy,
                "mean_ms": point.mean_ms,
                "guarantee": None,
                "parity": parity,
                "times": times,
                "batches": (),
                "notes": (
                    SET_LATER,
                    NO_STREAM if times is None else times.sentence,
                    *(() if promised is None else (NO_PROMISE,)),
                    *told,
                ),
            }
        )

    def measurements(self, moved: ExitsReport) -> list[Measurement]:
        """Accuracy and mean latency of the file with other thresholds, marked with where they come from."""
        right = {split: self.given(split, moved.thresholds) == self.labels[split] for split in SPLITS}
        accuracies = [accuracy_of(split, hits, moved.target, (FROM_LOGITS,)) for split, hits in right.items()]
        return [*accuracies, *mean_latency(moved)]


def read_report(path: Path) -> ExitsReport:
    return ExitsReport.model_validate_json(path.read_bytes())


def read_kept(report: Path, logits: Path) -> KeptExits:
    """What a calibration wrote into its folder."""
    with np.load(logits, allow_pickle=False) as kept:
        return KeptExits(
            read_report(report),
            {split: kept[f"{split}_logits"] for split in SPLITS},
            {split: kept[f"{split}_labels"] for split in SPLITS},
        )


def mean_latency(report: ExitsReport) -> list[Measurement]:
    """The mean over the validation samples, and its ratio to the baseline of the same session if that was
    timed."""
    marks = (FROM_PATHS, *(report.times.marks if report.times else ()))

    def measured(name: str, value: float, unit: str, intervals: Sequence[Interval]) -> Measurement:
        # What disturbs a session disturbs all its paths: as if they were slow together, and fast together.
        low, high = (
            (np.dot(report.share, ends) for ends in zip(*intervals, strict=True)) if intervals else 2 * [None]
        )
        return Measurement(
            name=name,
            value=value,
            low=low,
            high=high,
            unit=unit,
            better="lower",
            split="validation",
            samples=report.samples,
            target=report.target,
            marks=marks,
        )

    found = [measured("latency_mean", report.mean_ms, "ms", report.path_intervals_ms)]
    if report.baseline_ms is not None:
        ratio = report.mean_ms / report.baseline_ms
        found.append(measured("latency_ratio", ratio, "x", report.ratio_intervals))
    return found
