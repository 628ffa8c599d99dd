"""A promise about exits: with this confidence, at most that share of the answers gets worse than the full
model's.

Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052; for exits Jazbec et al. 2024, arXiv:2405.20915),
with fixed-sequence testing: candidates are tested from the safest to the fastest, each at the full level,
until the first one fails.
"""

import math
from collections.abc import Sequence

from scipy.stats import binom

from workers.base import Frozen
from workers.exits.thresholds import Answers, Point


class Guarantee(Frozen):
    """What was promised. at_most, confidence: shares, 0-1. worse: of the held-out samples, at `thresholds`.

    thresholds: None when nothing can be promised. sentence: for the reader, either way.
    """

    confidence: float
    at_most: float
    samples: int
    worse: int | None
    thresholds: tuple[float, ...] | None
    sentence: str


def guarantee(
    candidates: Sequence[Point], held_out: Answers, *, at_most: float, confidence: float
) -> Guarantee:
    """The fastest of the candidates about which the promise can be made.

    candidates: from the safest to the fastest, in an order that `held_out` had no part in.
    """
    samples = len(held_out.scores)
    tested = candidates if samples else ()  # of no samples no share gets worse
    outcomes = [round(held_out.of(point.thresholds).worse * samples) for point in tested]
    last = last_passing(outcomes, samples, at_most, 1 - confidence)
    promise = (
        f"with {100 * confidence:g} % confidence at most {100 * at_most:g} % of the answers get worse than "
        "the full model's"
    )
    worse = thresholds = None
    if last is not None:
        worse, thresholds = outcomes[last], candidates[last].thresholds
        sentence = f"W{promise[1:]}: {worse:,} of {samples:,} held-out samples did."
    else:
        sentence = (
            f"Nothing can be promised, such as that {promise}: {_why(outcomes, samples, at_most, confidence)}"
        )
    return Guarantee(
        confidence=confidence,
        at_most=at_most,
        samples=samples,
        worse=worse,
        thresholds=thresholds,
        sentence=sentence,
    )


def last_passing(worse: Sequence[int], samples: int, at_most: float, delta: float) -> int | None:
    """Place of the last candidate before the first that fails; None when the first one fails.

    worse: for each candidate in turn, how many of the samples got worse. A candidate passes when so few
    would be seen with probability `delta` at most if its true share were `at_most` or more (exact binomial).
    """
    passed = None
    for place, count in enumerate(worse):
        if binom.cdf(count, samples, at_most) > delta:
            break
        passed = place
    return passed


def samples_needed(at_most: float, confidence: float) -> int:
    """With fewer, not even a candidate without a single worse answer would pass. at_most: above 0."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-at_most))


def _why(worse: Sequence[int], samples: int, at_most: float, confidence: float) -> str:
    if at_most == 0:
        return "no number of samples shows that none ever gets worse. Allow a share above 0."
    needed = samples_needed(at_most, confidence)
    if samples < needed:
        return (
            f"there are {samples:,} held-out samples, and at least {needed:,} are needed even if none "
            "of them gets worse. Add validation samples, or allow a larger share."
        )
    if not worse:
        return "no thresholds were found at which a sample leaves early."
    return (
        f"the safest thresholds already made {worse[0]:,} of {samples:,} held-out answers worse. "
        "Add validation samples, allow a larger share, or train the exits longer."
    )
