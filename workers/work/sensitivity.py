"""Kind `sensitivity`: the layers of a model, each changed alone, on a dataset."""

import torch

from db import analyses
from db.models import Run, Stage
from db.session import reading
from workers.assignment import Assignment
from workers.base import Context, Progress
from workers.errors import StepFailed
from workers.places import USUAL, choose
from workers.sensitivity.analysis import Analysis
from workers.sensitivity.table import Asked, Table
from workers.stages import key_of
from workers.work.files import open_data, open_model_of, prepared

KIND = "sensitivity"


def do(assignment: Assignment) -> None:
    """subject_id: a baseline's stage. request: what `Asked` takes. A table that was begun is gone on with."""
    settings, asked = assignment.settings, Asked.model_validate(assignment.job.request)
    with reading(settings.database) as session:
        stage = session.get(Stage, assignment.job.subject_id)
        if stage is None:
            raise StepFailed("sensitivity", "the baseline is no longer there.", "Ask again.")
        run = session.get_one(Run, stage.run_id)
        model, dataset = run.experiment.model, run.experiment.dataset
    place = choose(USUAL, settings.threads).steps
    target = place.target.model_dump(mode="json")
    key = key_of(model.file_sha256, model.spec, dataset.sha256, target, asked.model_dump(), run.seed)
    with reading(settings.database) as session:
        found = analyses.find(session, KIND, key)
        known = None if found is None else Table.model_validate(found.document)
    if known is not None and known.whole:
        return
    assignment.tell("Opening the model")
    candidate = open_model_of(assignment, model)
    if candidate.graph is None:
        raise StepFailed("sensitivity", "an ONNX file cannot be pruned.", "Upload the model as a .pt2.")
    data = prepared(assignment, open_data(assignment, dataset), candidate.spec)
    rows = 0 if known is None else len(known.rows)

    def tell(progress: Progress) -> None:
        assignment.tell(f"Sensitivity: {progress.text}", stage=rows, share=progress.share)

    context = Context(
        data=data,
        original=candidate,
        runtime=place.runtime,
        target=place.target,
        device=torch.device(settings.device),
        seed=run.seed,
        scratch=assignment.folder,
        tell=tell,
    )

    def keep(table: Table) -> None:
        nonlocal rows
        rows = len(table.rows)  # as the job's stage: an open page is drawn again
        document = table.model_dump(mode="json")
        assignment.write(
            lambda session: analyses.save(
                session, KIND, key, stage_id=stage.id, target=target, document=document
            )
        )

    Analysis(candidate, context, asked, keep=keep, known=known).run()
