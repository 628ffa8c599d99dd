"""How long the steps of a recipe train: from earlier runs where there are any, else from timed steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from workers.base import Method
from workers.catalog import METHODS
from workers.prediction.expecting import Predictor
from workers.recipe import step_id

#: What decides how long an epoch of a method takes, beside its epochs.
KINDS = ("recovery", "mode", "student", "teacher", "training", "distillation", "pace", "exits", "mixup")


@dataclass(frozen=True)
class Earlier:
    """A stage as it was carried out on the same samples and the same kind of device."""

    step: Method
    seconds: float


def earlier(stages: Sequence[tuple[str, Mapping[str, Any], float, str]], queue: str) -> list[Earlier]:
    """stages: (method, settings, seconds, queue). Those with settings of another time are left out."""
    found = []
    for method, settings, seconds, where in stages:
        if where != queue or method not in METHODS:
            continue
        try:
            found.append(Earlier(METHODS[method].model_validate(settings), seconds))
        except ValidationError:
            continue
    return found


def training_seconds(
    steps: Sequence[Method],
    known: Sequence[Earlier],
    samples: Mapping[str, int],
    predictor: Predictor | None,
) -> float | None:
    """None where it is not known of some step. samples: of the splits.

    predictor: where its steps were timed on the kind of device that will train.
    """
    total = 0.0
    for number, step in enumerate(steps):
        epochs = epochs_of(step)
        if not step.trains or not epochs:
            continue
        rates = [
            e.seconds / epochs_of(e.step) for e in known if epochs_of(e.step) and _kind(e.step) == _kind(step)
        ]
        if rates:
            total += median(rates) * epochs
            continue
        if predictor is None:
            return None
        seconds = _timed(step, steps[: number + 1], epochs, samples, predictor)
        if seconds is None:
            return None
        total += seconds
    return total


def epochs_of(step: Method) -> int:
    """Passes over the training samples in all."""
    if not step.trains:
        return 0
    settings = step.model_dump()
    if "training" in settings:
        return sum(_phases(settings))
    rounds = settings.get("rounds", 1) if "recovery" in settings else settings.get("steps", 1)
    return int(settings.get("recovery_epochs", settings.get("epochs", 0)) * rounds)


def _phases(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs of early exits: of the heads alone, and of everything together."""
    heads = 0 if settings["training"] == "joint" else settings["head_epochs"]
    return heads, 0 if settings["training"] == "heads" else settings["epochs"]


def _kind(step: Method) -> tuple[Any, ...]:
    settings = step.model_dump()
    return step_id(step), *(settings.get(name) for name in KINDS)


def _timed(
    step: Method, until: Sequence[Method], epochs: int, samples: Mapping[str, int], predictor: Predictor
) -> float | None:
    """From the seconds of an update and of a look, between the sizes of network that were timed."""
    before, macs = _size(until[:-1], predictor), _size(until, predictor)
    settings = step.model_dump()
    if before is None or macs is None or settings.get("teacher") in ("other", "architecture"):
        return None
    update, look = (_at(predictor, what, macs) for what in ("update", "look"))
    if settings.get("mode") == "qat":
        if predictor.table.rounded is None:
            return None
        update *= predictor.table.rounded
    told = _teacher_look(step, settings, before, predictor)
    heads = _phases(settings)[0] if "training" in settings else 0
    # With the heads alone the network looks, and what is learnt by them costs next to nothing.
    trained = heads * (look + told) + (epochs - heads) * (update + told)
    return samples["train"] * trained + samples["validation"] * epochs * look


def _size(steps: Sequence[Method], predictor: Predictor) -> float | None:
    """Share of the multiply-accumulates that is left, from the widths, else from the amounts."""
    found: float | None = predictor.expect(steps).macs
    if found is not None:
        return found
    amounts = [step.left.get("macs", 1.0) for step in steps]
    return None if None in amounts else math.prod(amount for amount in amounts if amount is not None)


def _teacher_look(step: Method, settings: Mapping[str, Any], before: float, predictor: Predictor) -> float:
    """Seconds in which a teacher looks at a sample; 0 without one."""
    if step_id(step) == "distillation":
        who = settings["teacher"]
    elif step_id(step) == "early_exit":
        who = settings["distillation"]
    else:
        who = "current" if settings.get("recovery") == "distillation" else "none"
    if who == "none":
        return 0.0
    return _at(predictor, "look", 1.0 if who == "original" else before)


def _at(predictor: Predictor, what: Literal["update", "look"], macs: float) -> float:
    """Seconds at another size: on the line through what was timed, and never under a tenth of the whole."""
    times = predictor.table.steps
    seconds = [getattr(step, what) for step in times]
    if len(times) == 1:
        return float(seconds[0])
    slope, start = np.polyfit([step.macs for step in times], seconds, 1)
    return float(max(start + slope * macs, 0.1 * max(seconds)))
