"""Models and datasets that come in: a row, a job that checks it, and a wake-up for a worker."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.session import reading, writing
from db import datasets, jobs, models_
from db.models import Job, Model

QUEUE = "cpu"


def queue_model(name: str, *, upload_sha256: str, settings: Mapping[str, Any]) -> str:
    """settings: architecture, size, mean, std, where they were given. Returns the model's id."""
    with writing() as session:
        model_id = models_.add(session, name=name, upload_sha256=upload_sha256).id
        job_id = _add_job(session, "model", model_id, settings)
    _wake(job_id)
    return model_id


def queue_dataset(name: str, *, upload_sha256: str | None) -> str:
    """name: of the uploaded file, or a known word without a file. Returns the dataset's id."""
    with writing() as session:
        added = datasets.add(session, name=name, source=name, upload_sha256=upload_sha256)
        job_id = _add_job(session, "dataset", added.id, {})
    _wake(job_id)
    return added.id


def queue_sample() -> None:
    """5,000 digits and a small net that is trained on them first."""
    queue_dataset("sample", upload_sha256=None)
    with writing() as session:
        model_id = models_.add(session, name="Sample net", upload_sha256="").id
        job_id = _add_job(session, "sample_model", model_id, {})
    _wake(job_id)


def check_again(job: Job, settings: Mapping[str, Any]) -> None:
    """Another import job for what is here already, e.g. with the architecture named now."""
    with writing() as session:
        job_id = _add_job(session, job.request["noun"], job.subject_id, settings)
    _wake(job_id)


def correct(model: Model, settings: Mapping[str, Any], *, used: bool) -> str:
    """Read the same file with other preprocessing; returns the id of the model that is being checked.

    used: it has runs, which keep it as it is; the corrected one stands beside it.
    """
    with writing() as session:
        model_id = model.id
        if used:
            stem, dot, ending = model.name.rpartition(".")
            name = f"{stem or ending} (corrected){dot}{ending if stem else ''}"
            model_id = models_.add(session, name=name, upload_sha256=model.upload_sha256).id
        job_id = _add_job(session, "model", model_id, settings)
    _wake(job_id)
    return model_id


def dismiss(job: Job) -> None:
    """Forget a correction that was refused; the model stays as it was."""
    with writing() as session:
        jobs.remove(session, job.id)


def side_of_the_data() -> tuple[int, str] | None:
    """Side of the pictures and name of the newest dataset, where all of them are square and alike."""
    with reading() as session:
        newest = next((dataset for dataset in datasets.all_of(session) if dataset.facts), None)
    if newest is None or newest.facts is None:
        return None
    sides = {*newest.facts["smallest"], *newest.facts["largest"]}
    return (sides.pop(), newest.name) if len(sides) == 1 else None


def forget(subject_id: str) -> None:
    """Remove a model or dataset that was refused."""
    with writing() as session:
        models_.remove(session, subject_id)
        datasets.remove(session, subject_id)


def _add_job(session: Session, noun: str, subject_id: str, settings: Mapping[str, Any]) -> str:
    request = {"noun": noun, **{key: value for key, value in settings.items() if value is not None}}
    return jobs.add(session, "import", subject_id, queue=QUEUE, request=request).id


def _wake(job_id: str) -> None:
    """After the commit. A worker that cannot be reached finds the job when it next looks."""
    from workers.queue import wake  # brings Celery along, which no page needs to be drawn

    wake(job_id)
