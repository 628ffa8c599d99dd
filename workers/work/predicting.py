"""Kind `predictor`: a model's layers are timed at several widths, so that forms can guess latencies."""

import logging

import torch

from db import predictors
from db.models import Model, Predictor
from db.session import reading
from workers.assignment import Assignment
from workers.base import Progress
from workers.places import USUAL, choose
from workers.prediction.building import build, table_key
from workers.prediction.reading import read_plan
from workers.work.files import open_model_of

log = logging.getLogger(__name__)


def do(assignment: Assignment) -> None:
    """subject_id: the predictor. Gives way to every other job, and goes on where it stopped."""
    settings, subject_id = assignment.settings, assignment.job.subject_id
    with reading(settings.database) as session:
        row = session.get_one(Predictor, subject_id)
        model_row = session.get_one(Model, row.model_id)
    model = open_model_of(assignment, model_row)
    place, device = choose(USUAL, settings.threads).steps, torch.device(settings.device)
    key = table_key(model, place, device)
    with reading(settings.database) as session:
        table = predictors.table_of(session, key)
    if table is None:
        folder = settings.data / "predictors"
        folder.mkdir(exist_ok=True)
        kept = folder / f"{key}.json"

        def tell(progress: Progress) -> None:
            assignment.give_way()
            assignment.tell(f"Timing layers: {progress.text}", share=progress.share)

        table = build(model, key, place, device, assignment.folder, kept, tell).model_dump(mode="json")
        kept.unlink(missing_ok=True)
    else:  # layers as wide, but what they have learnt decides which channels go and which ranks stay
        assert model.graph is not None
        table = {**table, "plan": read_plan(model.graph, model.spec)[0].model_dump(mode="json")}
    built = table
    assignment.write(lambda session: predictors.built(session, subject_id, key, built))
    log.info("table %s", key)
