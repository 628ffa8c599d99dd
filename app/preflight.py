"""What a person should know of a recipe before it is queued, for the place that it is to be measured in."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import app.session
from app.predicting import Outlook
from app.queueing import queue_for
from app.recipes import Plain, trains
from db import workers
from workers.places import USUAL
from workers.prediction import paying
from workers.prediction.expecting import Predictor
from workers.recipe import Recipe

NONE = "No estimate of latency"


@dataclass(frozen=True)
class Place:
    """name: of a machine that has one; empty for those that do runs. facts: what the workers there tell."""

    name: str
    runtime: str
    facts: Sequence[Mapping[str, Any]]


def place_of(target: str, runtime: str, recipe: Plain, online: set[str]) -> Place:
    """target: a machine that has a name, guessed for by its own times or not at all; empty for the worker
    that will do the run. runtime: what `workers.places.choose` takes there.
    """
    queue = queue_for(recipe, online)
    with app.session.reading() as session:
        named = {known.name: known.worker for known in workers.targets(session)}
        own = [worker.facts for worker in workers.online(session) if queue in worker.queues]
    if target:
        return Place(target, USUAL, [named[target].facts] if target in named else [])
    return Place("", runtime, own)


def unknown_latency(outlook: Outlook, place: Place, *, trainable: bool) -> str:
    """Why the latency of no recipe can be guessed, in a sentence; empty where it can."""
    if not trainable:
        return f"{NONE}: layers are timed of trainable models (.pt2) alone."
    if place.runtime != USUAL:
        return f"{NONE}: layers are timed in ONNX Runtime on the processor alone. The run measures it."
    if outlook.target is None:
        return _no_table(outlook)
    hosts = {facts["host"] for facts in place.facts if "host" in facts}
    if outlook.target.host in hosts or not (hosts or place.name):
        return ""
    if place.name:
        return f"{NONE}: this model's layers were not timed on {place.name}. The run measures it there."
    return f"{NONE}: this model's layers were timed on another machine than the one that does the run."


def _no_table(outlook: Outlook) -> str:
    if outlook.job is None:
        return f"{NONE} yet: this model's layers are timed as soon as a worker is online."
    if outlook.job.state == "failed":
        return f"{NONE}: {(outlook.job.error or {}).get('what', 'timing this model failed.')}"
    return (
        f"{NONE} yet: it follows once this model's layers are timed, behind everything else that is queued."
    )


def sentences(
    recipe: Plain, outlook: Outlook, place: Place, *, trainable: bool, online: set[str]
) -> Iterator[str]:
    steps = Recipe.model_validate(recipe).steps
    if not steps:
        yield "Without steps this run measures the model as it is: the baseline."
    if steps and not trainable:
        yield "This model is an ONNX file; its steps need a trainable model (.pt2)."
    yield from paying.sentences(steps, _machine(place), _predictor(outlook, place, trainable=trainable))
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
