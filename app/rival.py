"""A static network of the same latency: the recipe that makes one, and which of the two wins."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.numbers import NARROW, milliseconds, share
from app.recipes import Plain, whole

#: Latencies that differ by less compare.
ALIKE = 0.05
#: What pruning can be asked to remove; see `workers.methods.structured_pruning`.
LEAST, MOST = 0.01, 0.95


@dataclass(frozen=True)
class Rival:
    """A static variant on the same target. ratio: of its latency to the baseline's."""

    variant: str
    name: str
    accuracy: float
    ratio: float


def rivals(rows: Iterable[Mapping[str, Any]], target: Mapping[str, Any]) -> list[Rival]:
    """rows: `db.variants.comparison`, each with its target as a mapping. The model as uploaded is none."""
    return [
        Rival(row["variant"], row["name"], row["accuracy"], row["ratio"])
        for row in rows
        if row["index"] > 0
        and not row["exits"]
        and row["target"] == target
        and row["ratio"] is not None
        and row["accuracy"] is not None
    ]


def best_alike(found: Iterable[Rival], ratio: float) -> Rival | None:
    """The most accurate one whose latency differs by less than 5 %."""
    alike = [rival for rival in found if abs(rival.ratio / ratio - 1) <= ALIKE]
    return max(alike, key=lambda rival: rival.accuracy, default=None)


def verdict(rival: Rival, accuracy: float, mean_ms: float) -> str:
    """One sentence about accuracy on validation at that mean latency."""
    difference = round(100 * (accuracy - rival.accuracy), 1)
    winner = "exits win" if difference > 0 else "the static network wins"
    told = f"{winner} by {abs(difference):.1f} points" if difference else "neither wins"
    return (
        f"At {milliseconds(mean_ms)} the static network has {share(rival.accuracy)}, the exits "
        f"{share(accuracy)}: {told}."
    )


def static_recipe(
    steps: Sequence[Mapping[str, Any]], exits: Mapping[str, Any], *, amount: float, mean_ms: float
) -> Plain | None:
    """The steps before the exits, then pruning to the same latency, trained for as many epochs.

    exits: settings of the step that added them. amount: share of the latency to remove; None comes of one
    that pruning does not take.
    """
    if not LEAST <= amount <= MOST:
        return None
    epochs = {
        "heads": exits["head_epochs"],
        "joint": exits["epochs"],
        "two_phase": exits["head_epochs"] + exits["epochs"],
    }
    pruning = {
        "method": "structured_pruning",
        "amount": round(amount, 3),
        "amount_of": "latency",
        "recovery_epochs": epochs[exits["training"]],
        "recovery_learning_rate": exits["learning_rate"],
    }
    name = f"Static at {milliseconds(mean_ms).replace(NARROW, ' ')}"
    return whole({"name": name, "steps": [*steps, pruning]})


def away(rival: Rival, ratio: float) -> str:
    """How far a static network is from the latency it was made for."""
    return f"{100 * (rival.ratio / ratio - 1):+.0f}{NARROW}%".replace("-", "−")
