"""What a person should know of a recipe before it is queued, for the place that it is to be measured in."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from app.place import Place
from app.predicting import Outlook
from app.queueing import queue_for
from app.recipes import Plain, trains
from workers.places import USUAL
from workers.prediction import paying
from workers.prediction.expecting import Predictor
from workers.recipe import Recipe

NONE = "No estimate of latency"
ANOTHER = f"{NONE}: this model's layers were timed on another machine than the one that does the run."


def unknown_latency(outlook: Outlook, place: Place, *, trainable: bool) -> str:
    """Why the latency of no recipe can be guessed, in a sentence; empty where it can."""
    if not trainable:
        return f"{NONE}: layers are timed of trainable models (.pt2) alone."
    if place.runtime != USUAL:
        return f"{NONE}: layers are timed in ONNX Runtime on the processor alone. The run measures it."
    if outlook.is_of(place):
        if not outlook.undecided:
            return ""
        return _no_table(outlook, "", " on the machine that does the run") if outlook.own is None else ANOTHER
    if outlook.target is None or place.name:
        return _no_table(outlook, place.name, f" on {place.name}" if place.name else "")
    return ANOTHER


def _no_table(outlook: Outlook, name: str, where: str) -> str:
    """name: of the machine that is to build it; empty for those that do runs. where: the same in words."""
    who = name or f"a worker{where and ' that does runs'}"
    if outlook.job is None:
        return f"{NONE} yet: this model's layers are timed as soon as {who} is online."
    if outlook.job.state == "failed":
        return f"{NONE}: {(outlook.job.error or {}).get('what', 'timing this model failed.')}"
    if outlook.job.state == "cancelled":
        return f"{NONE}: timing this model's layers{where} was cancelled."
    if outlook.job.state == "queued" and not outlook.reachable:
        return f"{NONE} yet: it follows once {who} is online again and has timed this model's layers."
    return (
        f"{NONE} yet: it follows once this model's layers are timed{where}, behind everything else that is "
        "queued."
    )


def sentences(
    recipe: Plain, outlook: Outlook, place: Place, *, trainable: bool, online: set[str]
) -> Iterator[str]:
    steps = Recipe.model_validate(recipe).steps
    if not steps:
        yield "Without steps this run measures the model as it is: the baseline."
    needing = dict.fromkeys(step.title for step in steps if step.needs_graph)
    if needing and not trainable:
        yield f"A trainable model (.pt2) is needed for {', '.join(needing)}; this model is an ONNX file."
    predictor = _predictor(outlook, place, trainable=trainable)
    yield from paying.sentences(steps, _machine(place), predictor, outlook.own)
    if _ends_pruned(recipe):
        yield "Pruning without fine-tuning after it usually costs much accuracy."
    macs = left_of(recipe, "macs")
    if macs is not None and macs < 0.15:
        yield "So little is left that the accuracy may not come back."
    if not online:
        yield "No worker is online. The run waits until one is."
    elif trains(recipe) and queue_for(recipe, online) == "cpu":
        yield "No GPU worker is online: the CPU takes it. Training is slower there."


def _machine(place: Place) -> paying.Machine:
    facts = place.facts[0] if place.facts else {}
    return paying.Machine.of(place.runtime, facts, elsewhere=bool(place.name))


def _predictor(outlook: Outlook, place: Place, *, trainable: bool) -> Predictor | None:
    """Where its times are those of the place."""
    return None if unknown_latency(outlook, place, trainable=trainable) else outlook.predictor


def left_of(recipe: Mapping[str, Any], name: str, families: tuple[str, ...] = ()) -> float | None:
    """Share of a number that the steps leave, as far as their amounts tell; None where they do not.

    families: empty counts all.
    """
    steps = Recipe.model_validate(recipe).steps
    left = [step.left.get(name, 1.0) for step in steps if not families or step.family in families]
    known = [share for share in left if share is not None]
    return math.prod(known) if len(known) == len(left) else None


def _ends_pruned(recipe: Mapping[str, Any]) -> bool:
    """True when channels go and nothing trains with what is left."""
    read = Recipe.model_validate(recipe).steps
    cut = max((index for index, step in enumerate(read) if step.family == "pruning"), default=None)
    return cut is not None and not any(step.trains for step in read[cut:])
