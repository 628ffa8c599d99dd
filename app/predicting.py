"""What the form says of a recipe before it is queued: from the table of its model, and from earlier runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import mean
from typing import Any

import app.session
from app.place import Place, place_of
from app.queueing import queue_for
from db import jobs, predictors, workers
from db.models import Dataset, Job, Model
from workers.base import Method, Target
from workers.places import USUAL
from workers.prediction.expecting import Expected, Predictor, chooses_by_time
from workers.prediction.table import Table
from workers.prediction.training import earlier, training_seconds
from workers.recipe import Recipe
from workers.stages import code_sha256


@dataclass(frozen=True)
class Check:
    """How far the guesses were from what was measured: the mean of absolute errors, as a share."""

    error: float
    runs: int


@dataclass(frozen=True)
class Outlook:
    """expected: None until the table is there. job: that builds it. check: of the table against runs.

    training_s: None where nothing tells it. own: the table of the machines that do runs; steps choose by it.
    undecided: they do, the run is measured elsewhere, and layers were not timed where it is done.
    reachable: whether a worker is online that does the job.
    """

    expected: Expected | None
    job: Job | None
    predictor: Predictor | None
    check: Check | None
    training_s: float | None
    own: Predictor | None = None
    undecided: bool = False
    reachable: bool = False

    @property
    def target(self) -> Target | None:
        """That the table is about."""
        return None if self.predictor is None else self.predictor.table.target

    def is_of(self, place: Place) -> bool:
        """Whether the times are those of the machines of a place, as far as they are known."""
        return self.predictor is not None and _is_of(self.predictor, place)


def outlook(
    model: Model,
    dataset: Dataset,
    experiment_id: str | None,
    recipe: Mapping[str, Any],
    place: Place,
    online: set[str],
) -> Outlook:
    """Asks for the table where a worker is online that can build it, and there is none or one of a machine
    that is no longer there."""
    steps = Recipe.model_validate(recipe).steps
    own, job = _predictor_of(model)
    predictor, undecided = own, False
    if place.name and any(chooses_by_time(step) for step in steps):
        undecided = not (own and _is_of(own, place_of("", place.runtime, dict(recipe), online)))
    if place.name and place.runtime == USUAL and not (own and _is_of(own, place)):
        there, its_job = _predictor_of(model, place.name)
        predictor = there or own  # which tells of sizes
        job = job if there and undecided else its_job
    queue = queue_for(recipe, online)
    with app.session.reading() as session:
        stages = predictors.trained_stages(session, experiment_id or "")
        measured = predictors.measured_ratios(session, model.id) if predictor else []
    here = own is not None and own.table.device == ("cuda" if queue == "gpu" else "cpu")
    samples = (dataset.facts or {}).get("splits")
    known = earlier(stages, queue)
    timed = own if here and samples else None
    return Outlook(
        expected=None if predictor is None else predictor.expect(steps, own),
        job=job,
        predictor=predictor,
        check=None if predictor is None else check(predictor, measured, own),
        training_s=training_seconds(steps, known, samples or {}, timed),
        own=own,
        undecided=undecided,
        reachable=job is not None and job.queue in online,
    )


def _is_of(predictor: Predictor, place: Place) -> bool:
    host = predictor.table.target.host
    return host in place.hosts or not (place.hosts or place.name)


def check(
    predictor: Predictor,
    measured: Sequence[tuple[str, list[Any], float, Any]],
    chosen_by: Predictor | None = None,
) -> Check | None:
    """measured: as `db.predictors.measured_ratios` gives it. None of it was used to build the table.

    chosen_by: see `Predictor.expect`.
    """
    errors: dict[str, float] = {}
    for run, plain, ratio, target in measured:
        if not target or _nameless(Target.model_validate(target)) != _nameless(predictor.table.target):
            continue
        steps = _steps(plain)
        # With exits it is the mean over the samples that was measured.
        if steps is None or any(step.family == "early_exit" for step in steps):
            continue
        guessed = predictor.expect(steps, chosen_by).ratio
        if guessed is not None:
            errors[run] = abs(guessed / ratio - 1)  # of a run the last stage counts
    return Check(mean(errors.values()), len(errors)) if errors else None


def _nameless(target: Target) -> Target:
    """A machine takes as long under another name."""
    return target.model_copy(update={"name": ""})


def _steps(plain: list[Any]) -> Sequence[Method] | None:
    try:
        return Recipe.model_validate({"steps": plain}).steps
    except ValueError:  # a run of long ago, with settings that are no more
        return None


def _predictor_of(model: Model, target: str = "") -> tuple[Predictor | None, Job | None]:
    code, queue = code_sha256(), predictors.queue_of(target)
    with app.session.reading() as session:
        row = predictors.of_model(session, model.id, code, target)
        able = [worker.facts or {} for worker in workers.online(session) if queue in worker.queues]
    if row is None and able and (model.file_name or "").endswith(".pt2"):
        with app.session.writing() as session:
            row = predictors.ask(session, model.id, code, target)
    if row is None:
        return None, None
    if row.key is not None and row.table is not None:
        ready = _ready(_Kept(row.id, row.key, row.table))
        if not _is_gone(ready.table.target, able):
            return ready, None
        with app.session.writing() as session:
            predictors.renew(session, row)
    with app.session.reading() as session:
        return None, jobs.latest(session, [row.id]).get(row.id)


def _is_gone(target: Target, able: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is none of the machines that could build a table, by what their workers tell; False where
    one of them has not told yet, or none is there."""
    if not able or any("host" not in facts for facts in able):
        return False
    return not any(facts["host"] == target.host and _version(facts) in ("", target.version) for facts in able)


def _version(facts: Mapping[str, Any]) -> str:
    """Of the runtime that layers are timed in; empty where it is not told."""
    return next((told["version"] for told in facts.get("runtimes", ()) if told["id"] == USUAL), "")


@dataclass(frozen=True)
class _Kept:
    predictor_id: str
    key: str
    table: Mapping[str, Any] = field(compare=False)


@lru_cache(maxsize=32)
def _ready(kept: _Kept) -> Predictor:
    """A table does not change without its key; the fit through it takes longer than asking it."""
    return Predictor(Table.model_validate(kept.table))
