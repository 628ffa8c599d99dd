"""Kind `run`: a recipe applied to a model and a dataset, each stage kept as soon as it is finished."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sqlalchemy.orm import Session

from db import jobs, models_, runs
from db.artifacts import Artifacts
from db.models import Experiment, Run
from db.session import reading
from workers.assignment import Assignment
from workers.base import Candidate, Measurement, Target
from workers.calibration.calibrate import LOGITS, REPORT
from workers.catalog import METHODS
from workers.data import Dataset, ImageData
from workers.measures.accuracy import answers_file
from workers.pipeline import Event, Job, Stage, run
from workers.places import USUAL, choose
from workers.recipe import Recipe
from workers.work.files import open_data, open_model_of, prepared
from workers.work.pictures import keep_pictures
from workers.work.rows import columns_of, threshold_columns

CHOSEN_HERE = "This step chose by time where the run was made, not on {target}."
log = logging.getLogger(__name__)


def do(assignment: Assignment) -> None:
    """subject_id: the run. request: {"runtime": what `workers.places.choose` takes}; empty: the usual one.

    With "target", the name of another machine, that runtime is one there: a job `measure` follows this one,
    which takes its own numbers in the usual runtime.
    """
    settings = assignment.settings
    runtime, elsewhere = (assignment.job.request.get(key, "") for key in ("runtime", "target"))
    choice = choose(USUAL if elsewhere else runtime or USUAL, settings.threads)
    with reading(settings.database) as session:
        row = runs.whole(session, assignment.job.subject_id)
    assert row is not None
    model, dataset, data = _opened(assignment, row.experiment)
    recipe = Recipe.model_validate(row.recipe)
    notes = _Notes(recipe, tuple(said for said in data.problems if said not in dataset.problems), elsewhere)
    kept = _Kept(assignment, row, dataset, choice.places[0].target, notes)
    outcome = run(
        Job(
            model=model,
            data=data,
            dataset=dataset.sha256,
            recipe=recipe,
            folder=settings.data / "stages",
            runtime=choice.steps.runtime,
            target=choice.steps.target,
            device=torch.device(settings.device),
            seed=row.seed,
            tell=kept.take,
            others=_others(assignment, recipe, row.project_id),
            choice=choice,
        )
    )

    def finish(session: Session) -> None:
        kept.add(session, outcome.stages)
        if elsewhere:
            jobs.measure(session, row.id, target=elsewhere, runtime=runtime or USUAL)
        session.get_one(Run, row.id).warnings = list(outcome.warnings)

    assignment.tell("Done", stage=len(outcome.stages) - 1, share=1.0)
    assignment.write(finish)


def _opened(assignment: Assignment, experiment: Experiment) -> tuple[Candidate, Dataset, ImageData]:
    assignment.tell("Opening the model")
    model = open_model_of(assignment, experiment.model)
    assignment.tell("Reading the dataset")
    dataset = open_data(assignment, experiment.dataset)
    assignment.tell("Decoding the pictures")
    return model, dataset, prepared(assignment, dataset, model.spec)


@dataclass(frozen=True)
class _Notes:
    """What this run says of its stages beside what they say themselves.

    problems: how the data were made to fit the model. elsewhere: the machine that the run is measured on.
    """

    recipe: Recipe
    problems: tuple[str, ...]
    elsewhere: str

    def of(self, stage: Stage) -> list[str]:
        if stage.index == 0:
            return [*self.problems, *stage.notes]
        timed = self.recipe.steps[stage.index - 1].depends_on_target
        return [*stage.notes, *[CHOSEN_HERE.format(target=self.elsewhere)] * bool(timed and self.elsewhere)]


class _Kept:
    """Takes what the pipeline tells; stages[index] = (id of the row, measurements in it).

    target: the one whose single answers are kept.
    """

    def __init__(
        self, assignment: Assignment, row: Run, dataset: Dataset, target: Target, notes: _Notes
    ) -> None:
        self.target, self.notes = target, notes
        self.assignment, self.run_id = assignment, row.id
        self.dataset, self.dataset_id = dataset, row.experiment.dataset_id
        self.count = len(row.recipe.get("steps", ())) + 1
        self.artifacts = Artifacts(assignment.settings.artifacts)
        self.stages: dict[int, tuple[str, tuple[Measurement, ...]]] = {}

    def take(self, event: Event) -> None:
        progress = event.progress
        name = "Baseline" if event.method is None else METHODS[event.method].title
        share = (event.stage + progress.share) / self.count
        self.assignment.tell(f"{name}: {progress.text}", stage=event.stage, share=min(share, 0.99))
        if "epoch" in progress.values:
            self.assignment.point(event.stage, progress.values)
        if event.finished is not None:
            self._keep(event.finished)

    def _keep(self, stage: Stage) -> None:
        if stage.exits is not None:
            keep_pictures(self.assignment, self.dataset_id, self.dataset)
        columns = {
            "index": stage.index,
            "method": stage.method,
            "settings": dict(stage.settings),
            "key": stage.key,
            "seconds": stage.seconds,
            "cached": stage.cached,
            "notes": self.notes.of(stage),
            "parity": None if stage.parity is None else stage.parity.model_dump(mode="json"),
            "file_sha256": self.artifacts.add(stage.file),
            "archive_sha256": self._beside(stage, "model.pt2"),
            "answers_sha256": self._beside(stage, answers_file(stage.file, self.target).name),
            "exits_sha256": self._beside(stage, REPORT),
            "exit_logits_sha256": self._beside(stage, LOGITS),
        }
        numbers = [columns_of(m) for m in stage.measurements]
        thresholds = None if stage.exits is None else threshold_columns(stage.exits.thresholds or ())

        def change(session: Session) -> None:
            row = runs.save_stage(session, self.run_id, columns, numbers, thresholds)
            self.stages[stage.index] = (row.id, stage.measurements)
            if not stage.cached:
                jobs.got_on(session, self.assignment.job.id)

        self.assignment.write(change)
        log.info("stage %d %s %s", stage.index, stage.key, "from cache" if stage.cached else "carried out")

    def add(self, session: Session, stages: Sequence[Stage]) -> None:
        """What was measured since, once all stages were timed side by side."""
        for stage in stages:
            stage_id, known = self.stages[stage.index]
            added = [m for m in stage.measurements if m not in known]
            runs.add_measurements(session, stage_id, [columns_of(m) for m in added])

    def _beside(self, stage: Stage, name: str) -> str | None:
        """In the store, if the stage has such a file."""
        file = stage.file.with_name(name)
        return self.artifacts.add(file) if file.exists() else None


def _others(assignment: Assignment, recipe: Recipe, project_id: str) -> dict[str, Candidate]:
    """The further models that steps ask for; those that are not there are left to the pipeline to refuse."""
    found = {}
    for name in {step.other_model for step in recipe.steps} - {None}:
        with reading(assignment.settings.database) as session:
            row = models_.named(session, project_id, str(name))
        if row is not None:
            found[str(name)] = open_model_of(assignment, row)
    return found
