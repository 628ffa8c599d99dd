"""What thresholds do to the samples of a file with early exits: from the kept logits, in milliseconds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import streamlit as st

from app.session import artifacts
from db.models import Stage, Variant
from db.variants import stored
from workers.calibration.calibrate import ExitsReport
from workers.calibration.moving import KeptExits, read_kept, read_report
from workers.exits.scores import leaving
from workers.exits.thresholds import Answers, Frontier, Point, find_frontier, threshold_grid
from workers.work.pictures import specimens

#: Positions of a slider, at equal shares of the samples: where many scores lie, it moves in small steps.
POSITIONS = 96


@dataclass(frozen=True)
class Explored:
    """Everything about a stage with exits that no threshold changes."""

    kept: KeptExits

    @property
    def report(self) -> ExitsReport:
        return self.kept.report

    @property
    def validation(self) -> Answers:
        return self.kept.answers["validation"]

    @cached_property
    def frontier(self) -> Frontier:
        return find_frontier(self.validation)

    @cached_property
    def grids(self) -> list[set[float]]:
        """Per exit the thresholds that a slider offers, those of the frontier among them."""
        fine = threshold_grid(self.validation, POSITIONS)
        grids = [set(rounded(line)) for line in fine]
        for point in (*self.frontier.points, self.validation.of(self.calibrated)):
            for grid, value in zip(grids, rounded(point.thresholds), strict=True):
                grid.add(value)
        return grids

    @cached_property
    def calibrated(self) -> tuple[float, ...]:
        """The thresholds that the stage came out with, which a promise is about."""
        return tuple(rounded(self.report.thresholds))

    @property
    def middle_ms(self) -> float:
        """Half way between the fastest way out and the whole model."""
        path_ms = self.report.path_ms
        return (min(path_ms) + path_ms[-1]) / 2

    @cached_property
    def always(self) -> list[tuple[str, float, float]]:
        """(name, ms, accuracy) of leaving at one exit always, and never early."""
        accuracies = self.validation.correct.mean(axis=0).tolist()
        names = [f"Always exit {number}" for number in range(1, len(accuracies))] + ["Never early"]
        return list(zip(names, self.report.path_ms, accuracies, strict=True))

    def at(self, thresholds: Sequence[float]) -> "Outcome":
        return Outcome(self, tuple(thresholds))


@dataclass(frozen=True)
class Outcome:
    """What one choice of thresholds does to the validation samples."""

    explored: Explored
    thresholds: tuple[float, ...]

    @cached_property
    def point(self) -> Point:
        return self.explored.validation.of(self.thresholds)

    @cached_property
    def taken(self) -> np.ndarray:
        """(N,) the exit of each sample, from 0."""
        return leaving(self.explored.validation.scores, self.thresholds) - 1

    @property
    def test_accuracy(self) -> float:
        return self.explored.kept.answers["test"].of(self.thresholds).accuracy

    @property
    def p99_ms(self) -> float:
        """The time of the way out by which 99 % of the samples are through."""
        path_ms = np.asarray(self.explored.report.path_ms)
        return float(np.quantile(path_ms[self.taken], 0.99, method="higher"))

    @cached_property
    def by_class(self) -> np.ndarray:
        """(classes, exits + 1) how many samples of each class leave where."""
        labels = self.explored.kept.labels["validation"]
        classes, ways = self.explored.kept.logits["validation"].shape[2], len(self.explored.report.path_ms)
        flat = np.bincount(labels * ways + self.taken, minlength=classes * ways)
        return np.asarray(flat.reshape(classes, ways))

    def early(self, count: int) -> np.ndarray:
        """Samples that left at the first exit that anybody takes: the surest of every class first."""
        first = int(self.taken.min())
        if first == len(self.thresholds):
            return np.empty(0, np.int64)
        rows = np.flatnonzero(self.taken == first)
        return self._of_all_classes(self._sorted(rows, -self.explored.validation.scores[rows, first]), count)

    def late(self, count: int) -> np.ndarray:
        """Samples that went to the end: those of every class of which the last exit was least sure."""
        rows = np.flatnonzero(self.taken == len(self.thresholds))
        return self._of_all_classes(self._sorted(rows, self.explored.validation.scores[rows, -1]), count)

    def _of_all_classes(self, rows: np.ndarray, count: int) -> np.ndarray:
        return np.asarray(rows[specimens(self.explored.kept.labels["validation"][rows], count)])

    @cached_property
    def changed(self) -> np.ndarray:
        """Samples whose answer is not the full model's; those that got worse first."""
        kept = self.explored.kept
        rows = np.flatnonzero(kept.given("validation", self.thresholds) != kept.guesses["validation"][:, -1])
        worse = self.explored.validation.worse[rows, self.taken[rows]]
        return self._sorted(rows, ~worse)

    def _sorted(self, rows: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.asarray(rows[np.argsort(by, kind="stable")])


@st.cache_resource(max_entries=8, show_spinner="Reading what every exit said")
def _explored(report_sha256: str, logits_sha256: str) -> Explored:
    store = artifacts()
    found = Explored(read_kept(store.path(report_sha256), store.path(logits_sha256)))
    _ = found.grids  # now, and not at the first move of a slider
    return found


def explored(stage: Stage) -> Explored | None:
    """None when the store has lost its files."""
    if stage.exits_sha256 is None or stage.exit_logits_sha256 is None:
        return None
    try:
        return _explored(stage.exits_sha256, stage.exit_logits_sha256)
    except KeyError:
        return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _report(sha256: str) -> ExitsReport:
    return read_report(artifacts().path(sha256))


def saved_report(variant: Variant, stage: Stage) -> ExitsReport | None:
    """What was measured at the thresholds of a point; None when the store has lost it."""
    sha256 = stored(variant, stage, "exits")
    try:
        return _report(sha256) if sha256 else None
    except KeyError:
        return None


def thresholds_of(variant: Variant) -> tuple[float, ...]:
    """First exit first."""
    return tuple((variant.thresholds or {}).values())


def rounded(thresholds: Iterable[float]) -> list[float]:
    """As a file holds them: float32."""
    return [float(np.float32(value)) for value in thresholds]


def labels_of(options: Sequence[float]) -> dict[float, str]:
    """Every one of the rising options with as many digits, three or more, as tell it from its neighbours."""
    told = {}
    for place, value in enumerate(options):
        neighbours = [*options[max(0, place - 1) : place], *options[place + 1 : place + 2]]
        told[value] = next(
            text
            for digits in range(3, 13)
            for text in [f"{value:.{digits}f}"]
            if all(text != f"{other:.{digits}f}" for other in neighbours) or digits == 12
        )
    return told
