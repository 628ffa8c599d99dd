"""Which thresholds a file gets, of all that were tried."""

import numpy as np

from workers.exits.guarantee import Guarantee, guarantee
from workers.exits.held_out import halves
from workers.exits.scores import never
from workers.exits.thresholds import Answers, Point, find_frontier


def choose(
    answers: Answers, *, max_drop: float, confidence: float | None, seed: int
) -> tuple[Point, Guarantee | None]:
    """The fastest thresholds that keep `max_drop` and, where a confidence is given, the promise.

    For the promise one half of the samples proposes the candidates, and the other half, which no step of the
    run saw, tests them. The point's numbers are of all samples.
    """
    promised = None
    if confidence is not None:
        proposing, testing = halves(len(answers.scores), seed)
        # Fewer answers get worse than max_drop, so the accuracy cannot drop by more.
        found = find_frontier(answers[proposing], loss="worse", seed=seed).points
        early = [point for point in found if point.share[-1] < 1 and point.worse <= max_drop / 100]
        promised = guarantee(early, answers[testing], at_most=max_drop / 100, confidence=confidence)
        if promised.thresholds is not None:
            point = answers.of(promised.thresholds)
            if point.worse <= max_drop / 100:
                return point, promised
            promised = promised.model_copy(
                update={"worse": None, "thresholds": None, "sentence": _broken(point, answers, promised)}
            )
    return _careful(answers, max_drop, seed), promised


def _broken(point: Point, answers: Answers, promised: Guarantee) -> str:
    """Why nothing is promised; happens where little confidence is asked for."""
    samples = len(answers.scores)
    return (
        f"Nothing can be promised: where {100 * promised.confidence:g} % confidence would allow it, "
        f"{round(point.worse * samples):,} of all {samples:,} samples get worse, more than "
        f"{100 * promised.at_most:g} %. Ask for more confidence."
    )


def _careful(answers: Answers, max_drop: float, seed: int) -> Point:
    """The fastest that loses at most `max_drop` points on the samples, one standard error added.

    The fastest of many that seem good enough lost too little by luck: without the standard error new samples
    lose more than was asked (one-standard-error rule, Breiman et al. 1984, section 3.4.3). Where so few
    samples show nothing, the fastest that loses none of them at all; nobody leaves where there is none.
    """
    frontier, samples = find_frontier(answers, seed=seed), len(answers.scores)
    exits = answers.scores.shape[1]
    lost = [(frontier.full - point.accuracy, point) for point in frontier.points if point.share[-1] < 1]
    fine = [p for drop, p in lost if drop + _standard_error(p, drop, samples) <= max_drop / 100 + 1e-12]
    fine = fine or [point for drop, point in lost if drop <= 1e-12]
    nobody = answers.of((never(answers.kind, exits),) * exits)
    return min([*fine, nobody], key=lambda point: point.mean_ms)


def _standard_error(point: Point, drop: float, samples: int) -> float:
    """Of the drop: the mean of differences of which `worse` are 1, `worse - drop` are -1, and the rest 0.

    One more worse answer is counted than was seen: none among few is not never.
    """
    square = (point.worse + 1 / samples) + (point.worse - drop)
    return float(np.sqrt(max(square - drop**2, 0.0) / samples))
