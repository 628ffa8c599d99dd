"""What is said to the database about predictors, and about the runs that they are held against."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, delete, null, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import jobs, workers
from db.models import Experiment, Job, Measurement, Predictor, Run, Stage, Variant

KIND = "predictor"
#: Of earlier runs so many are looked at, the newest ones: forms ask at every change.
MOST_RUNS = 50


def of_model(session: Session, model_id: str, code: str, target: str = "") -> Predictor | None:
    """target: name of the machine that it is about; empty for the one that does runs."""
    which = Predictor.model_id == model_id, Predictor.code == code, Predictor.target == target
    return session.scalar(select(Predictor).where(*which))


def ask(session: Session, model_id: str, code: str, target: str = "") -> Predictor:
    """Found, or asked for with a job; no worker is woken, who has nothing else to do looks by himself."""
    found = of_model(session, model_id, code, target)
    if found is not None:
        return found
    asked = Predictor(model_id=model_id, code=code, target=target)
    try:
        with session.begin_nested():
            session.add(asked)
    except IntegrityError:  # another page asked at the same moment
        there = of_model(session, model_id, code, target)
        if there is None:
            raise
        return there
    _queue(session, asked)
    return asked


def renew(session: Session, predictor: Predictor) -> None:
    """Its table is about a machine as it was: asked for anew, once however many pages see that."""
    same = Predictor.id == predictor.id, Predictor.key == predictor.key, Predictor.table.is_not(None)
    emptied = update(Predictor).where(*same).values(key=None, table=null()).returning(Predictor.id)
    if session.scalar(emptied) is not None:
        _queue(session, predictor)


def _queue(session: Session, asked: Predictor) -> None:
    jobs.add(session, KIND, asked.id, queue=queue_of(asked.target), request={})


def queue_of(target: str) -> str:
    """Whose workers build the tables of a machine with this name; empty for those that do runs."""
    return workers.target_queue(target) if target else "cpu"


def forget(session: Session, target: str) -> None:
    """The tables of a machine that has this name, and the jobs that build them."""
    for job in jobs.active(session, jobs.PATIENT):
        if job.queue == queue_of(target):
            jobs.request_cancel(session, job.id)
    session.execute(delete(Predictor).where(Predictor.target == target))


def table_of(session: Session, key: str) -> Mapping[str, Any] | None:
    """A table that was built for this key, also for another model."""
    found = select(Predictor.table).where(Predictor.key == key, Predictor.table.is_not(None)).limit(1)
    return session.scalar(found)


def built(session: Session, predictor_id: str, key: str, table: Mapping[str, Any]) -> None:
    row = session.get_one(Predictor, predictor_id)
    row.key, row.table = key, dict(table)


def measured_ratios(session: Session, model_id: str) -> list[tuple[str, list[Any], float, Any]]:
    """(run, recipe's steps until then, latency ratio, target) of what a model's newest runs measured.

    Of every run and target the last stage alone, and without other thresholds.
    """
    newest = _newest(select(Run.id).join(Experiment).where(Experiment.model_id == model_id))
    statement = (
        select(Stage.run_id, Stage.index, Run.recipe, Measurement.value, Measurement.target)
        .join(Run, Stage.run_id == Run.id)
        .join(Variant, Variant.stage_id == Stage.id)
        .join(Measurement, Measurement.variant_id == Variant.id)
        .where(
            Stage.run_id.in_(newest),
            Stage.index > 0,
            Variant.file_sha256.is_(None),
            Measurement.name == "latency_ratio",
            Measurement.value.is_not(None),
        )
        .order_by(Stage.index)
    )
    last: dict[tuple[str, str], tuple[str, list[Any], float, Any]] = {}
    for run, index, recipe, value, target in session.execute(statement):
        if value is not None:
            last[run, json.dumps(target, sort_keys=True)] = run, recipe["steps"][:index], value, target
    return list(last.values())


def trained_stages(session: Session, experiment_id: str) -> Sequence[tuple[str, dict[str, Any], float, str]]:
    """(method, settings, seconds, queue) of the stages of an experiment's newest runs that were really
    carried out."""
    newest = _newest(select(Run.id).where(Run.experiment_id == experiment_id))
    statement = (
        select(Stage.method, Stage.settings, Stage.seconds, Job.queue)
        .join(Run, Stage.run_id == Run.id)
        .join(Job, Job.subject_id == Run.id)
        .where(Run.id.in_(newest), Stage.index > 0, Stage.cached.is_(False))
        .order_by(Run.created_at)
    )
    return [
        (str(method), settings, seconds, queue)
        for method, settings, seconds, queue in session.execute(statement)
    ]


def _newest(runs: Select[str]) -> Select[str]:
    return runs.order_by(Run.created_at.desc()).limit(MOST_RUNS)
