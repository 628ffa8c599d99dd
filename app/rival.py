"""A static network of the same latency: the recipe that makes one, and which of the two wins."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from app.numbers import NARROW, milliseconds, share
from app.recipes import Plain, whole
from workers.training.settings import TrainingSettings

#: Latencies that differ by less compare.
ALIKE = 0.05
#: From this p on a difference may be chance.
SIGNIFICANT = 0.05
#: What pruning can be asked to remove; see `workers.methods.structured_pruning`.
LEAST, MOST = 0.01, 0.95
#: Pruning removes at least what it is asked for. If so much more than that is left, it had no more to remove.
LEFT_OVER = 1.1


@dataclass(frozen=True)
class Rival:
    """A static variant on the same target. stage: its place in the run; ratio: of its latency to the
    baseline's."""

    variant: str
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

    @property
    def place(self) -> int:
        """Of the step that adds exits, and of the pruning instead."""
        return _place(self.steps)

    @cached_property
    def asked(self) -> dict[str, float]:
        """By run the amount, where its recipe is what `static_recipe` makes of these steps."""
        mould = static_recipe(self.steps, LEAST, 1.0)["steps"]
        place = self.place

        def amount(steps: Sequence[Plain]) -> float | None:
            if len(steps) != len(mould) or "amount" not in steps[place]:
                return None
            alone = {"amount": steps[place]["amount"]}
            same = steps == [*mould[:place], mould[place] | alone, *mould[place + 1 :]]
            return float(alone["amount"]) if same else None

        amounts = {run: amount(recipe["steps"]) for run, _, _, recipe in self.queued}
        return {run: value for run, value in amounts.items() if value is not None}

    @cached_property
    def ends(self) -> list[Rival]:
        """What whole recipes came to; on the way there, networks are pruned and not yet trained."""
        lengths = {run: len(recipe["steps"]) for run, _, _, recipe in self.queued}
        return [rival for rival in self.found if rival.stage == lengths.get(rival.run)]

    @cached_property
    def tries(self) -> list[Try]:
        """Static networks that were made for this contest, whatever the thresholds were then."""
        return [Try(self.asked[rival.run], rival) for rival in self.ends if rival.run in self.asked]

    @cached_property
    def narrowest(self) -> float | None:
        """The latency ratio at which pruning had nothing more to remove; None where it never came so far."""
        place = self.place
        ratios = {(rival.run, rival.stage): rival.ratio for rival in self.found}
        ends = [
            made.rival.ratio
            for made in self.tries
            if (after := ratios.get((made.rival.run, place + 1))) is not None
            and after / ratios.get((made.rival.run, place), 1.0) > LEFT_OVER * (1 - made.amount)
        ]
        return min(ends, default=None)

    @property
    def unfinished(self) -> tuple[str, str] | None:
        """Name and state of the newest try, where its job is not done."""
        states = [(name, state) for run, name, state, _ in self.queued if run in self.asked and state]
        return states[-1] if states and states[-1][1] != "done" else None


def rivals(rows: Iterable[Mapping[str, Any]], target: Mapping[str, Any]) -> list[Rival]:
    """rows: `db.variants.comparison`, each with its target as a mapping. The model as uploaded is none."""
    return [
        Rival(row["variant"], row["run"], row["index"], row["name"], row["accuracy"], row["ratio"])
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
        for rival in contest.ends
        if alike(rival, ratio) or (rival.ratio < ratio and rival.accuracy >= accuracy)
    ]
    if fair:
        return max(fair, key=lambda rival: rival.accuracy)
    tried = [made.rival for made in contest.tries]
    beaten = [rival for rival in tried if rival.ratio > ratio and rival.accuracy <= accuracy]
    return min(beaten, key=lambda rival: rival.ratio, default=None)


def alike(rival: Rival, ratio: float) -> bool:
    return abs(rival.ratio / ratio - 1) <= ALIKE


def verdict(rival: Rival, ratio: float, accuracy: float, mean_ms: float, p: float | None) -> str:
    """One sentence about accuracy on validation at that mean latency.

    p: of both being right equally often, see `app.answers.paired`; None where that is not known.
    """
    difference = round(100 * (accuracy - rival.accuracy), 1)
    told, same = f"{abs(difference):.1f} points", alike(rival, ratio)
    chance = difference == 0 or (p is not None and p >= SIGNIFICANT)
    exits_win = difference > 0 if same or not chance else rival.ratio > ratio
    wins = "exits win" if exits_win else "the static network wins"
    if not chance:
        wins = f"{wins} by {told}"
    elif same:
        wins = f"{told} may be chance, neither wins" if difference else "neither wins"
    else:
        wins = f"{wins}, as accurate as far as the samples tell, and faster"
    if same:
        return (
            f"At {milliseconds(mean_ms)} the static network has {share(rival.accuracy)}, the exits "
            f"{share(accuracy)}: {wins}."
        )
    return (
        f"The static network takes {milliseconds(mean_ms * rival.ratio / ratio)} ({away(rival, ratio)}) and "
        f"has {share(rival.accuracy)}, the exits {share(accuracy)} at {milliseconds(mean_ms)}: {wins}."
    )


def away(rival: Rival, ratio: float) -> str:
    """How far a static network is from the latency it was made for."""
    return f"{100 * (rival.ratio / ratio - 1):+.0f}{NARROW}%".replace("-", "−")


def static_recipe(steps: Sequence[Mapping[str, Any]], amount: float, mean_ms: float) -> Plain:
    """The same steps with pruning to that latency instead of exits, then as much training in the same way.

    steps: one of them adds exits. amount: share of the latency to remove. The pruning is what
    tests/benchmarks/results/methods.md found most accurate; its teacher is the model as uploaded.
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
        "recovery": "none",
    }
    training = {name: exits[name] for name in TrainingSettings.model_fields if name in exits}
    lesson = {"method": "distillation", **training, "epochs": epochs[exits["training"]]}
    name = f"Static at {milliseconds(mean_ms)} · {share(amount, 0)}".replace(NARROW, " ")
    return whole({"name": name, "steps": [*steps[:place], pruning, lesson, *steps[place + 1 :]]})


def amount_for(contest: Contest, ratio: float) -> float | None:
    """What to ask pruning for, in a straight line through what was tried; None where that is hopeless."""
    if contest.narrowest is not None and contest.narrowest > ratio:
        return None
    done = sorted(contest.tries, key=lambda made: made.amount)
    asked = [0.0, *(made.amount for made in done), 1.0]
    gone = np.maximum.accumulate([0.0, *(1 - made.rival.ratio / contest.before for made in done), 1.0])
    wanted = 1 - ratio / contest.before
    amount = float(np.interp(wanted, gone, asked))
    if len(done) > 1 and wanted < gone[1] < gone[2]:
        # Both removed too much. What they differ by tells more than the time with nothing removed, which of
        # quantized networks nobody measured.
        steeper = asked[1] - (gone[1] - wanted) * (asked[2] - asked[1]) / (gone[2] - gone[1])
        amount = max(steeper, asked[1] / 4)
    return amount if LEAST <= amount <= MOST else None


def _place(steps: Sequence[Mapping[str, Any]]) -> int:
    return next(index for index, step in enumerate(steps) if step["method"] == "early_exit")
