"""Runs that are asked for: rows, a job each, and a wake-up for a worker after the commit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

import app.session
from app.recipes import trains
from db import jobs, predictors, runs, workers
from db.models import Experiment, Job
from workers.places import USUAL
from workers.sensitivity.table import Asked

BASELINE = {"name": "Baseline", "steps": []}


def queue_runs(
    model_id: str,
    dataset_id: str,
    recipes: Iterable[Mapping[str, Any]],
    *,
    seed: int = 0,
    runtime: str = USUAL,
    target: str = "",
) -> list[str]:
    """One run per recipe; before the first of an experiment, its baseline. Returns the ids of the runs.

    runtime: what they are measured in, as `workers.places.choose` takes it. target: the name of the machine
    that has it; empty: the one that does the run.
    """
    with app.session.writing() as session:
        experiment = runs.experiment_of(session, model_id, dataset_id)
        first = [BASELINE] if runs.count(session, experiment.id) == 0 else []
        request = {"runtime": runtime} | ({"target": target} if target else {})
        queued = [_queue(session, experiment, recipe, seed, request) for recipe in (*first, *recipes)]
    for job in queued:
        wake(job)
    return [job.subject_id for job in queued[len(first) :]]


def _queue(
    session: Session, experiment: Experiment, recipe: Mapping[str, Any], seed: int, request: Mapping[str, str]
) -> Job:
    run = runs.add(session, experiment, name=recipe["name"], recipe=recipe, seed=seed)
    queue = queue_for(recipe, workers.online_queues(session))
    return jobs.add(session, "run", run.id, queue=queue, request=request)


def queue_measuring(run_id: str, target: str, runtime: str) -> None:
    """Ask for a finished run's numbers on another machine; nothing of the run is done again."""
    with app.session.writing() as session:
        job = jobs.measure(session, run_id, target=target, runtime=runtime)
    wake(job)


def queue_thresholds(stage_id: str, variant_id: str, thresholds: Sequence[float]) -> None:
    """Ask for a point with these thresholds; variant_id: the point that they were moved from."""
    with app.session.writing() as session:
        request = {"variant": variant_id, "thresholds": list(thresholds)}
        job = jobs.add(session, "thresholds", stage_id, queue="cpu", request=request)
    wake(job)


def forget_target(target: str) -> None:
    """What nobody else could do goes with it."""
    with app.session.writing() as session:
        workers.forget(session, target)
        if all(known.name != target for known in workers.targets(session)):
            predictors.forget(session, target)


def queue_profile(stage_id: str, variant_ids: Sequence[str], *, again: bool = False) -> None:
    """Ask where the time goes. variant_ids: one of the stage, and those to profile beside it.

    again: also where that is known already.
    """
    with app.session.writing() as session:
        request = {"variants": list(variant_ids), "again": again}
        job = jobs.add(session, "profile", stage_id, queue="cpu", request=request)
    wake(job)


def queue_throughput(stage_id: str, variant_id: str, seconds: float) -> None:
    """Ask for a throughput grid within about so many seconds, also where there is one already."""
    with app.session.writing() as session:
        request = {"variant": variant_id, "seconds": seconds}
        job = jobs.add(session, "throughput", stage_id, queue="cpu", request=request)
    wake(job)


def queue_sensitivity(stage_id: str, asked: Asked) -> None:
    """Ask how sensitive the layers of a baseline's model are."""
    with app.session.writing() as session:
        job = jobs.add(session, "sensitivity", stage_id, queue="cpu", request=asked.model_dump(mode="json"))
    wake(job)


def queue_blocks(model_id: str, request: Mapping[str, str]) -> None:
    """Ask how long the blocks of a model take. request: as `workers.work.blocks` takes it."""
    with app.session.writing() as session:
        job = jobs.add(session, "blocks", model_id, queue="cpu", request=request)
    wake(job)


def cancel(job_id: str) -> None:
    with app.session.writing() as session:
        jobs.request_cancel(session, job_id)


def retry(job: Job) -> None:
    with app.session.writing() as session:
        again = jobs.retry(session, job.id)
    if again:
        wake(job)


def queue_for(recipe: Mapping[str, Any], online: set[str]) -> str:
    """A recipe that trains takes a GPU where one is online; without one the CPU does everything."""
    return "gpu" if trains(recipe) and "gpu" in online else "cpu"


def wake(job: Job) -> None:
    """A worker that cannot be reached finds the job when it next looks."""
    from workers.queue import wake as send  # brings Celery along, which no page needs to be drawn

    send(job.id)
