"""Kind `predictor`: a model's layers are timed at several widths, so that forms can guess latencies.

On a machine that has a name, which may share nothing but the database, the model is fetched.
"""

import logging
import shutil
from pathlib import Path

import torch

from db import jobs, predictors
from db.models import Model, Predictor
from db.session import reading
from workers.assignment import Assignment
from workers.base import Progress
from workers.places import USUAL, choose
from workers.prediction.building import build, renewed, table_key
from workers.prediction.table import Table
from workers.work.files import open_model_of

log = logging.getLogger(__name__)


def do(assignment: Assignment) -> None:
    """subject_id: the predictor. Gives way to every other job, and goes on where it stopped."""
    settings, subject_id = assignment.settings, assignment.job.subject_id
    with reading(settings.database) as session:
        row = session.get_one(Predictor, subject_id)
        model_row = session.get_one(Model, row.model_id)
    model = open_model_of(assignment, model_row)
    place = choose(USUAL, settings.threads, row.target).steps
    device = None if row.target else torch.device(settings.device)  # a machine that has a name trains nothing
    key = table_key(model, place, device)
    with reading(settings.database) as session:
        known = predictors.table_of(session, key)
    table = None if known is None else renewed(Table.model_validate(known), model)
    folder = _folder(assignment)
    if table is None:
        kept = folder / key
        kept.mkdir(parents=True, exist_ok=True)

        def tell(progress: Progress) -> None:
            assignment.give_way()
            assignment.tell(f"Timing layers: {progress.text}", share=progress.share)

        table = build(model, key, place, device, kept, tell)
    built = table.model_dump(mode="json")
    assignment.write(lambda session: predictors.built(session, subject_id, key, built))
    shutil.rmtree(folder, ignore_errors=True)
    log.info("table %s", key)


def _folder(assignment: Assignment) -> Path:
    """Where this predictor's networks are kept between attempts; those of jobs that ended are removed."""
    every = assignment.settings.data / "predictors"
    found = list(every.iterdir()) if every.exists() else []
    with reading(assignment.settings.database) as session:
        alive = {job.subject_id for job in jobs.active(session, (predictors.KIND,))}
    for folder in found:
        if folder.name not in alive:
            shutil.rmtree(folder, ignore_errors=True)
    return every / assignment.job.subject_id
