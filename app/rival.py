"""A static network of the same latency: the recipe that makes one, and which of the two wins."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from app.numbers import NARROW, milliseconds, share
from app.recipes import Plain, whole

#: Latencies that differ by less compare.
ALIKE = 0.05
#: What pruning can be asked to remove; see `workers.methods.structured_pruning`.
LEAST, MOST = 0.01, 0.95
#: Pruning removes at least what it is asked for. Less by this share of the latency: it had no more to remove.
SHORT = 0.03


@dataclass(frozen=True)
class Rival:
    """A static variant on the same target. stage: its place in the run; ratio: of its latency to the
    baseline's."""

    run: str
    stage: int
    name: str
    accuracy: float
    ratio: float


@dataclass(frozen=True)
class Try:
    """A static network that was made to meet exits. amount: the share of the latency that was to go."""

    amount: float
    rival: Rival


@dataclass(frozen=True)
class Contest:
    """What stands against a stage with exits.

    steps: the recipe up to that stage, every setting spelled out. before: latency ratio of the same network
    without exits. found: all static variants. queued: (id, name, state of its job, recipe) of every run.
    """

    steps: Sequence[Plain]
    before: float
    found: Sequence[Rival]
    queued: Sequence[tuple[str, str, str | None, Plain]]

    @cached_property
    def asked(self) -> dict[str, float]:
        """By run the amount, where its recipe is what `static_recipe` makes of these steps."""
        mould = static_recipe(self.steps, LEAST, 1.0)["steps"]
        place = _place(self.steps)

        def amount(steps: Sequence[Plain]) -> float | None:
            if len(steps) != len(mould) or "amount" not in steps[place]:
                return None
            alone = {"amount": steps[place]["amount"]}
            same = steps == [*mould[:place], mould[place] | alone, *mould[place + 1 :]]
            return float(alone["amount"]) if same else None

        amounts = {run: amount(recipe["steps"]) for run, _, _, recipe in self.queued}
        return {run: value for run, value in amounts.items() if value is not None}

    @cached_property
    def tries(self) -> list[Try]:
        """Static networks that were made for this contest, whatever the thresholds were then."""
        return [
            Try(self.asked[rival.run], rival)
            for rival in self.found
            if rival.run in self.asked and rival.stage == len(self.steps)
        ]

    @cached_property
    def narrowest(self) -> float | None:
        """The latency ratio at which pruning had nothing more to remove; None where it never came so far."""
        place = _place(self.steps)
        ratios = {(rival.run, rival.stage): rival.ratio for rival in self.found}
        ends = [
            made.rival.ratio
            for made in self.tries
            if (after := ratios.get((made.rival.run, place + 1))) is not None
            and 1 - after / ratios.get((made.rival.run, place), 1.0) < made.amount - SHORT
        ]
        return min(ends, default=None)

    @property
    def waiting(self) -> tuple[str, str] | None:
        """Name and state of a try that is not done yet."""
        open_ = (
            (name, state)
            for run, name, state, _ in self.queued
            if run in self.asked and state in ("queued", "running")
        )
        return next(open_, None)


def rivals(rows: Iterable[Mapping[str, Any]], target: Mapping[str, Any]) -> list[Rival]:
    """rows: `db.variants.comparison`, each with its target as a mapping. The model as uploaded is none."""
    return [
        Rival(row["run"], row["index"], row["name"], row["accuracy"], row["ratio"])
        for row in rows
        if row["index"] > 0
        and not row["exits"]
        and row["target"] == target
        and row["ratio"] is not None
        and row["accuracy"] is not None
    ]


def deciding(contest: Contest, ratio: float, accuracy: float) -> Rival | None:
    """The static network that tells who wins at this latency; None while none does.

    That is the most accurate one within 5 %, or a faster one that is as accurate; else the fastest of the
    tries, if it is slower and yet no more accurate.
    """
    fair = [
        rival
        for rival in contest.found
        if alike(rival, ratio) or (rival.ratio < ratio and rival.accuracy >= accuracy)
    ]
    if fair:
        return max(fair, key=lambda rival: rival.accuracy)
    tried = [made.rival for made in contest.tries]
    beaten = [rival for rival in tried if rival.ratio > ratio and rival.accuracy <= accuracy]
    return min(beaten, key=lambda rival: rival.ratio, default=None)


def alike(rival: Rival, ratio: float) -> bool:
    return abs(rival.ratio / ratio - 1) <= ALIKE


def verdict(rival: Rival, ratio: float, accuracy: float, mean_ms: float) -> str:
    """One sentence about accuracy on validation at that mean latency."""
    difference = round(100 * (accuracy - rival.accuracy), 1)
    winner = "exits win" if difference > 0 else "the static network wins"
    told = f"{winner} by {abs(difference):.1f} points" if difference else "neither wins"
    if alike(rival, ratio):
        return (
            f"At {milliseconds(mean_ms)} the static network has {share(rival.accuracy)}, the exits "
            f"{share(accuracy)}: {told}."
        )
    if not difference:
        told = "the static network wins" if rival.ratio < ratio else "exits win"
    return (
        f"The static network takes {milliseconds(mean_ms * rival.ratio / ratio)} ({away(rival, ratio)}) and "
        f"has {share(rival.accuracy)}, the exits {share(accuracy)} at {milliseconds(mean_ms)}: {told}."
    )


def away(rival: Rival, ratio: float) -> str:
    """How far a static network is from the latency it was made for."""
    return f"{100 * (rival.ratio / ratio - 1):+.0f}{NARROW}%".replace("-", "−")


def static_recipe(steps: Sequence[Mapping[str, Any]], amount: float, mean_ms: float) -> Plain:
    """The same steps with pruning to that latency instead of exits, trained for as many epochs.

    steps: one of them adds exits. amount: share of the latency to remove. The pruning is what
    tests/benchmarks/results/methods.md found most accurate.
    """
    place = _place(steps)
    exits = steps[place]
    epochs = {
        "heads": exits["head_epochs"],
        "joint": exits["epochs"],
        "two_phase": exits["head_epochs"] + exits["epochs"],
    }
    pruning = {
        "method": "structured_pruning",
        "amount": round(amount, 3),
        "amount_of": "latency",
        "importance": "second_derivative",
        "scope": "global",
        "recovery_epochs": epochs[exits["training"]],
        "recovery_learning_rate": exits["learning_rate"],
        "recovery_optimizer": exits["optimizer"],
    }
    name = f"Static at {milliseconds(mean_ms)} · {share(amount, 0)}".replace(NARROW, " ")
    return whole({"name": name, "steps": [*steps[:place], pruning, *steps[place + 1 :]]})


def amount_for(contest: Contest, ratio: float) -> float | None:
    """What to ask pruning for, in a straight line between what was tried; None where that is hopeless."""
    if contest.narrowest is not None and contest.narrowest > ratio:
        return None
    done = sorted(contest.tries, key=lambda made: made.amount)
    asked = [0.0, *(made.amount for made in done), 1.0]
    gone = np.maximum.accumulate([0.0, *(1 - made.rival.ratio / contest.before for made in done), 1.0])
    amount = float(np.interp(1 - ratio / contest.before, gone, asked))
    return amount if LEAST <= amount <= MOST else None


def _place(steps: Sequence[Mapping[str, Any]]) -> int:
    return next(index for index, step in enumerate(steps) if step["method"] == "early_exit")
