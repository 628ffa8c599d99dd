"""Kind `sensitivity`: the layers of a model, each changed alone, on a dataset."""

from collections.abc import Mapping
from typing import Any

import torch

from db import analyses
from db.models import Dataset, Model, Run, Stage
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
    asked = Asked.model_validate(assignment.job.request)
    stage, run, model, dataset = _subject(assignment)
    place = choose(USUAL, assignment.settings.threads).steps
    target = place.target.model_dump(mode="json")
    content = key_of(model.file_sha256, model.spec, dataset.sha256, target, asked.model_dump(), run.seed)
    kept = _Kept(assignment, stage.id, target, content)
    known = kept.known()
    if known is not None and known.whole:
        kept.take(known)  # for this stage too, and as what was asked for last
        return
    assignment.tell("Opening the model")
    candidate = open_model_of(assignment, model)
    if candidate.graph is None:
        raise StepFailed("sensitivity", "an ONNX file cannot be pruned.", "Upload the model as a .pt2.")
    context = Context(
        data=prepared(assignment, open_data(assignment, dataset), candidate.spec),
        original=candidate,
        runtime=place.runtime,
        target=place.target,
        device=torch.device(assignment.settings.device),
        seed=run.seed,
        scratch=assignment.folder,
        tell=kept.tell,
    )
    Analysis(candidate, context, asked, keep=kept.take, known=known).run()


def _subject(assignment: Assignment) -> tuple[Stage, Run, Model, Dataset]:
    with reading(assignment.settings.database) as session:
        stage = session.get(Stage, assignment.job.subject_id)
        if stage is None:
            raise StepFailed("sensitivity", "the baseline is no longer there.", "Ask again.")
        run = session.get_one(Run, stage.run_id)
        return stage, run, run.experiment.model, run.experiment.dataset


class _Kept:
    """The table as it is kept for a stage. content: key of what it depends on, whosever baseline that is."""

    def __init__(
        self, assignment: Assignment, stage_id: str, target: Mapping[str, Any], content: str
    ) -> None:
        self.assignment, self.stage_id, self.target, self.content = assignment, stage_id, target, content
        self.rows = 0

    def known(self) -> Table | None:
        """The fullest of all stages with this content."""
        with reading(self.assignment.settings.database) as session:
            found = analyses.of_any_stage(session, KIND, self.content)
            tables = [Table.model_validate(row.document) for row in found]
        table = max(tables, key=lambda table: (table.whole, len(table.rows)), default=None)
        self.rows = 0 if table is None else len(table.rows)
        return table

    def take(self, table: Table) -> None:
        self.rows = len(table.rows)
        document, key = table.model_dump(mode="json"), f"{self.content}-{self.stage_id}"
        self.assignment.write(
            lambda session: analyses.save(
                session, KIND, key, stage_id=self.stage_id, target=self.target, document=document
            )
        )

    def tell(self, progress: Progress) -> None:
        """The rows as the job's stage: an open page is drawn again with each."""
        self.assignment.tell(f"Sensitivity: {progress.text}", stage=self.rows, share=progress.share)
