"""Thresholds for every trade-off between accuracy and latency, found by trying them on samples.

Each exit gets a grid of thresholds at quantiles of its scores. Samples are counted once into the cells
between them; the outcome of every combination then follows from sums over cells.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workers.base import ExitPlan
from workers.errors import StepFailed
from workers.exits.scores import Score, leaving, never, planned_scores

Loss = Literal["error", "worse"]

LEVELS = 32
#: With more exits the combinations are too many to try them all.
EXHAUSTIVE_EXITS = 3
RESTARTS = 20
#: How many prices of a millisecond are tried, where not every combination is.
PRICES = 32


@dataclass(frozen=True)
class Answers:
    """What the exits and the end said about N samples.

    scores: (N, exits) float32. correct: (N, exits + 1) bool. path_ms: (exits + 1,), the time of a sample
    that leaves there, everything before it included.
    """

    kind: Score
    scores: np.ndarray
    correct: np.ndarray
    path_ms: np.ndarray

    @property
    def worse(self) -> np.ndarray:
        """(N, exits + 1) bool: leaving here is wrong where the full model is right."""
        return np.asarray(self.correct[:, -1:] & ~self.correct)

    def __getitem__(self, rows: np.ndarray) -> "Answers":
        return Answers(self.kind, self.scores[rows], self.correct[rows], self.path_ms)

    def of(self, thresholds: np.ndarray | tuple[float, ...]) -> "Point":
        """What these thresholds do to these samples."""
        rows, place = np.arange(len(self.scores)), leaving(self.scores, thresholds) - 1
        share = np.bincount(place, minlength=len(self.path_ms)) / len(rows)
        return Point(
            tuple(float(threshold) for threshold in thresholds),
            accuracy=float(self.correct[rows, place].mean()),
            worse=float(self.worse[rows, place].mean()),
            mean_ms=float(share @ self.path_ms),
            share=tuple(share.tolist()),
        )


def answers_to(labels: np.ndarray, logits: np.ndarray, plan: ExitPlan, path_ms: Sequence[float]) -> Answers:
    """From (N,) labels and (N, exits + 1, classes) logits of all exits and the end."""
    correct = logits.argmax(axis=-1) == labels[:, None]
    return Answers(plan.score, planned_scores(plan, logits), correct, np.asarray(path_ms))


@dataclass(frozen=True)
class Point:
    """One choice of thresholds. accuracy, worse, share: of the samples, 0-1; share: one per exit and the end.

    worse: answers that are wrong where the full model's are right.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    worse: float
    mean_ms: float
    share: tuple[float, ...]


@dataclass(frozen=True)
class Frontier:
    """No other choice that was tried is both faster and better. points: slowest first."""

    points: tuple[Point, ...]
    #: Accuracy of the full model on the same samples.
    full: float

    def solve(self, *, max_drop: float | None = None, max_ms: float | None = None) -> Point:
        """The fastest that loses at most `max_drop` percentage points against the full model; without a
        `max_drop`, the most accurate. Either way its mean latency is at most `max_ms`.

        Raises StepFailed when nothing that was tried is good and fast enough.
        """
        fine = [
            point
            for point in self.points
            if (max_drop is None or point.accuracy >= self.full - max_drop / 100 - 1e-12)
            and (max_ms is None or point.mean_ms <= max_ms * (1 + 1e-12))
        ]
        if not fine:
            most = max(self.points, key=lambda point: point.accuracy)
            raise StepFailed(
                "exit thresholds",
                f"none lose at most {max_drop} points within {max_ms} ms: the fastest take "
                f"{self.points[-1].mean_ms:.3g} ms, the most accurate are right for {most.accuracy:.2%} of "
                f"the samples, the full model for {self.full:.2%}.",
                "Allow more time or a larger drop, or move the first exit forward.",
            )
        if max_drop is None:
            return max(fine, key=lambda point: point.accuracy)
        return min(fine, key=lambda point: point.mean_ms)


def find_frontier(answers: Answers, *, loss: Loss = "error", levels: int = LEVELS, seed: int = 0) -> Frontier:
    """The thresholds between which one can sensibly choose.

    loss: "error", wrong answers; or "worse", answers wrong where the full model's are right.
    seed: of the restarts, for more exits than EXHAUSTIVE_EXITS.
    """
    grid = threshold_grid(answers, levels)
    cells = np.stack(
        [np.searchsorted(line, answers.scores[:, place]) for place, line in enumerate(grid)], axis=1
    )
    losses = answers.worse if loss == "worse" else ~answers.correct
    sizes = [len(line) for line in grid]

    def point(levels: Sequence[int]) -> Point:
        return answers.of(np.array([line[level] for line, level in zip(grid, levels, strict=True)]))

    if len(sizes) <= EXHAUSTIVE_EXITS:
        points = {point(levels): levels for levels in _all_best(cells, losses, answers.path_ms, sizes)}
    else:
        points = {point(levels): levels for levels in _swept(cells, losses, answers.path_ms, sizes, seed)}
        # A price finds the corners of the frontier; what lies between them is one exit's threshold away.
        corners = [points[corner] for corner in _undominated(points, loss)]
        points |= {point(levels): levels for levels in _neighbours(corners, sizes)}
    return Frontier(_undominated(points, loss), float(answers.correct[:, -1].mean()))


def threshold_grid(answers: Answers, levels: int) -> list[np.ndarray]:
    """For each exit its thresholds, rising, the last one letting nobody leave.

    They lie half way between two neighbouring scores, where the rounding of another runtime turns nothing.
    """
    highest, grid = never(answers.kind, answers.scores.shape[1]), []
    for column in answers.scores.T:
        values = np.unique(column)
        between = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [highest]])
        wanted = np.quantile(column, np.arange(levels) / levels, method="lower")
        places = np.searchsorted(values, wanted)
        grid.append(np.unique(np.append(between[places], highest)).astype(np.float32))
    return grid


def _undominated(points: Iterable[Point], loss: Loss) -> tuple[Point, ...]:
    def lost(point: Point) -> float:
        return point.worse if loss == "worse" else -point.accuracy

    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.mean_ms, lost(point))):
        if not kept or lost(point) < lost(kept[-1]):
            kept.append(point)
    return tuple(reversed(kept))


# In what follows: cells (N, exits) int64, how many thresholds of an exit's grid lie below a sample's score,
# so that it leaves at every level smaller than that; losses (N, exits + 1) bool; sizes: of the exits' grids.


def _all_best(
    cells: np.ndarray, losses: np.ndarray, path_ms: np.ndarray, sizes: list[int]
) -> set[tuple[int, ...]]:
    """Every combination is tried; those that no other beats, as one level per exit."""
    loss = _sums(cells, losses, sizes).ravel()
    ms = _sums(cells, np.broadcast_to(path_ms, losses.shape), sizes).ravel()
    order = np.lexsort((loss, ms))
    least = np.minimum.accumulate(loss[order])
    better = np.append(True, least[1:] < least[:-1])
    return set(zip(*(place.tolist() for place in np.unravel_index(order[better], sizes)), strict=True))


def _sums(cells: np.ndarray, values: np.ndarray, sizes: list[int]) -> np.ndarray:
    """For every combination of levels the sum of values (N, exits + 1) where the samples leave.

    Returns an array of shape `sizes`.
    """
    total, exits = np.zeros(sizes), len(sizes)
    for place in range(exits + 1):
        seen = min(place + 1, exits)  # the exits that decide about leaving here
        shape = tuple(size + 1 for size in sizes[:seen])
        flat = np.ravel_multi_index(tuple(cells[:, :seen].T), shape)
        counted = np.bincount(flat, values[:, place], minlength=int(np.prod(shape))).reshape(shape)
        for axis in range(seen):
            below = counted.cumsum(axis=axis)  # at level j: the cells up to j, which stay
            if axis == place:
                below = below.take([-1], axis=axis) - below
            counted = below.take(range(sizes[axis]), axis=axis)
        total += counted.reshape(counted.shape + (1,) * (exits - seen))
    return total


def _swept(
    cells: np.ndarray, losses: np.ndarray, path_ms: np.ndarray, sizes: list[int], seed: int
) -> set[tuple[int, ...]]:
    """For every price of a millisecond, coordinate descent from random starts on loss + price x latency."""
    generator = np.random.default_rng(seed)
    rows, weights = np.unique(np.hstack([cells, losses]), axis=0, return_counts=True)
    cells, losses = rows[:, : len(sizes)], rows[:, len(sizes) :]
    found = {tuple(size - 1 for size in sizes)}  # nobody leaves
    for price in np.geomspace(1e-3, 10, PRICES) / np.ptp(path_ms):
        costs = weights[:, None] * (losses + price * path_ms)
        levels = generator.integers(sizes, size=(RESTARTS, len(sizes)))
        while True:
            before = levels.copy()
            for place in range(len(sizes)):
                levels[:, place] = _best_level(cells, costs, levels, place, sizes[place])
            found.update(tuple(line) for line in levels.tolist())
            if (levels == before).all():
                break
    return found


def _best_level(
    cells: np.ndarray, costs: np.ndarray, levels: np.ndarray, place: int, size: int
) -> np.ndarray:
    """For each of (restarts, exits) levels the best one of exit `place` while the others stay."""
    sure = cells > levels[:, None]
    reached = ~sure[:, :, :place].any(axis=2)
    later = np.concatenate([sure[:, :, place + 1 :], np.ones((*reached.shape, 1), bool)], axis=2)
    otherwise = place + 1 + later.argmax(axis=2)
    gain = reached * (costs[:, place] - costs[np.arange(len(cells)), otherwise])
    flat = cells[:, place] + (size + 1) * np.arange(len(levels))[:, None]
    counted = np.bincount(flat.ravel(), gain.ravel(), minlength=len(levels) * (size + 1))
    stay = counted.reshape(len(levels), size + 1).cumsum(axis=1)
    return np.asarray((stay[:, -1:] - stay[:, :-1]).argmin(axis=1))


def _neighbours(found: Iterable[tuple[int, ...]], sizes: Sequence[int]) -> set[tuple[int, ...]]:
    """Everything that differs from one of these in one level."""
    return {
        (*levels[:place], level, *levels[place + 1 :])
        for levels in found
        for place, size in enumerate(sizes)
        for level in range(size)
    }
