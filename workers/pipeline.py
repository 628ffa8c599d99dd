"""run(model, dataset, recipe) -> stages: each step applied, kept, exported, compared and measured.

Resume is caching: a restarted run, and another recipe with the same beginning, go on from the last finished
stage (`stages.py` says what is kept). Knows no queue and no database.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from workers.base import (
    Bench,
    Candidate,
    Context,
    LabelledData,
    Method,
    ModelSpec,
    Place,
    Progress,
    Runtime,
    Target,
)
from workers.baseline import warnings_of
from workers.calibration.calibrate import calibrate
from workers.deploy.export import export_onnx, export_segments
from workers.deploy.parity import Parity, check_parity, parity_inputs
from workers.errors import DatasetRefused, StepFailed
from workers.exits.executor import torch_segments
from workers.exits.held_out import WithoutHeldOut
from workers.exits.staging import segments
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.measuring import Measuring
from workers.places import Choice, usual
from workers.recipe import CHANGING, Recipe, settings_of, step_id
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import Stage as Stage  # the shape of what a run gives
from workers.stages import Store, identity_of, place_of, stage_keys, write_stage
from workers.writing import written_whole


@dataclass(frozen=True)
class Outcome:
    """stages[0] is the baseline. archive: the last stage as a trainable `.pt2`, None for an ONNX upload."""

    stages: tuple[Stage, ...]
    archive: Path | None
    warnings: tuple[str, ...]


#: Of every step of a run that makes a promise: its accuracies are not those that are measured afterwards.
HALF_SEEN = "This step saw half of the validation samples; the other half tests the promise."
#: Of a run that is measured in another runtime.
CALIBRATED_HERE = "The times of the ways out, which thresholds weigh, were taken in ONNX Runtime."


@dataclass(frozen=True)
class Event:
    """What a run tells while it works; `finished` comes once per stage."""

    stage: int
    method: str | None
    progress: Progress
    finished: Stage | None = None


@dataclass(frozen=True)
class Job:
    """What one run is made of.

    folder: where stages are kept, shared by all runs. dataset: SHA-256 of the data.
    runtime, target: where steps that choose by time do so. others: the further models that steps ask for, by
    the names in the recipe. choice: where the stages are measured; None: in `runtime` alone.
    """

    model: Candidate
    data: LabelledData
    dataset: str
    recipe: Recipe
    folder: Path
    runtime: Runtime
    target: Target
    device: torch.device
    seed: int
    tell: Callable[[Event], None] = lambda _: None
    others: Mapping[str, Candidate] = field(default_factory=dict)
    choice: Choice | None = None

    @property
    def asked(self) -> Choice:
        place = Place(self.runtime, self.target)
        return self.choice or Choice((place,), place)

    @property
    def steps(self) -> tuple[Method | None, ...]:
        """One per stage; the baseline is made by none."""
        return None, *self.recipe.steps

    @property
    def store(self) -> Store:
        return Store(self.folder)


def run(job: Job) -> Outcome:
    """Carry out the recipe. Raises a ParedownError; finished stages stay for the next attempt."""
    check(job.model, job.data.classes, job.recipe, job.others)
    job.store.clear()
    measuring = Measuring(job.asked, job.data, job.store, partial(_reopen, job))
    stages: list[Stage] = []
    for index, key in enumerate(_keys(job)):
        tell = partial(_tell, job, index)
        # Another run with the same beginning may be at it right now; then its result is waited for.
        tell(Progress("waiting for its turn", 0.0))
        with job.store.turn(key):
            kept = job.store.find(key)
            if kept is None:
                # Every step starts from what is kept: cached or not, the same bits and the same names.
                model = _reopen(job, stages[-1]) if stages else job.model
                kept = _carry_out(job, index, key, model, tell)
            kept = measuring.alone(kept, tell)
        stages.append(kept)
        tell(Progress("done", 1.0), finished=kept)
    stages = measuring.together(stages, tell)
    return Outcome(tuple(stages), stages[-1].archive, warnings_of(stages[0], job.asked, job.data.classes))


def check(model: Candidate, classes: Sequence[str], recipe: Recipe, others: Mapping[str, Candidate]) -> None:
    """Refuse, before hours of work, what can be known to fail. Raises DatasetRefused and StepFailed."""
    known, given = model.spec.classes, len(classes)
    if known != given:
        raise DatasetRefused(
            "model and dataset",
            f"do not belong together: the model tells {known} classes apart, the dataset has {given}.",
            "Bring the data that the model was trained for.",
        )
    for index, step in enumerate(recipe.steps):
        where = f"step {index + 1} ({step_id(step)})"
        if step.other_model is not None:
            _check_other(where, step.other_model, others.get(step.other_model), model.spec)
        if model.graph is None and step.needs_graph:
            raise StepFailed(
                where,
                "works on a trainable model, and an ONNX file has no graph to train.",
                "Bring the model as .pt2, or as weights. Without steps an ONNX file is measured.",
            )
        if not any(earlier.family in CHANGING for earlier in recipe.steps[:index]):
            step.check(model)


def _check_other(where: str, name: str, other: Candidate | None, spec: ModelSpec) -> None:
    """Two models work together when they see the same pictures and tell the same classes apart."""
    if other is None:
        raise StepFailed(
            where,
            f"asks for another model, {name!r}, which is not there.",
            "Upload it, or give it with --other NAME=FILE.",
        )
    if other.graph is None:
        raise StepFailed(where, f"{name!r} is an ONNX file.", "Bring that model as a .pt2.")
    own, theirs = (s.preprocessing.model_dump(exclude={"mean", "std"}) for s in (spec, other.spec))
    if theirs != own or other.spec.classes != spec.classes:
        differing = {key: value for key, value in theirs.items() if own[key] != value}
        if other.spec.classes != spec.classes:
            differing["classes"] = other.spec.classes
        raise StepFailed(
            where,
            f"{name!r} takes other pictures or knows other classes than this model: "
            f"{', '.join(f'{key} {value}' for key, value in differing.items())}.",
            "Bring a model for the same pictures and classes; --size sets that of weights.",
        )


def _tell(job: Job, index: int, progress: Progress, *, finished: Stage | None = None) -> None:
    step = job.steps[index]
    job.tell(Event(index, None if step is None else step_id(step), progress, finished))


def _keys(job: Job) -> Iterator[str]:
    start = {
        "model": identity_of(job.model),
        "dataset": job.dataset,
        "seed": job.seed,
        "device": str(job.device),
    }
    return stage_keys(job.recipe, place_of(job.target, job.runtime), job.others, **start)


def _carry_out(job: Job, index: int, key: str, model: Candidate, tell: Callable[[Progress], None]) -> Stage:
    """Do the step, export and compare what came out, and keep it."""
    step = job.steps[index]
    scratch = job.store.scratch(key)
    with job.store.filling(key) as folder:
        model, seconds = _applied(job, step, model, scratch, tell)
        tell(Progress("exporting", 1.0))
        file = folder / "model.onnx"
        model, parity = _exported(job, model, file, tell)
        stage = Stage(
            index=index,
            method=None if step is None else step_id(step),
            settings={} if step is None else settings_of(step),
            key=key,
            file=job.folder / key / file.name,
            seconds=seconds,
            cached=False,
            notes=model.notes,
            parity=parity,
            sparse=model.sparse,
            exits=model.exits,
        )
        if model.graph is not None:
            write_archive(trace(model.graph, model.spec.preprocessing), folder / "model.pt2")
        write_stage(stage, folder)
    return stage


def _exported(
    job: Job, model: Candidate, file: Path, tell: Callable[[Progress], None]
) -> tuple[Candidate, Parity | None]:
    """Write `file`, and hold it against the model. Exits are calibrated on what was exported."""
    if model.exits is None:
        export_onnx(model, file, job.data.classes)
        return model, check_parity(model, file, parity_inputs(job.data), OnnxRuntime())
    # Quantized segments are no graph's any more: the file is held against them.
    staged = None
    if model.graph is not None:
        staged = torch_segments(segments(model.graph, model.spec.preprocessing.shape))
    # Files with exits are timed in the usual runtime, wherever else the run is measured.
    bench = Bench(job.data, OnnxRuntime(), usual(job.target), tell)
    made = calibrate(
        export_segments(model, file),
        model.exits,
        file,
        model.spec,
        bench,
        staged=staged,
        baseline=job.store.folder / next(_keys(job)) / file.name,
        seed=job.seed,
    )
    made.keep(file.parent)
    elsewhere = (CALIBRATED_HERE,) * (bench.target.runtime != job.target.runtime)
    calibrated = dataclasses.replace(model, exits=made.plan, notes=(*model.notes, *made.notes, *elsewhere))
    return calibrated, made.report.parity.plain


def _applied(
    job: Job, step: Method | None, model: Candidate, scratch: Path, tell: Callable[[Progress], None]
) -> tuple[Candidate, float]:
    """The changed candidate and the seconds it took, those of earlier attempts that were killed included."""
    if step is None:
        return model, 0.0
    clock = scratch / "seconds"
    before = float(clock.read_text() or 0) if clock.exists() else 0.0
    started = time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - started

    def heard(progress: Progress) -> None:
        if progress.values:  # an epoch: what was done until here is not done again
            with written_whole(clock) as file:
                file.write_text(str(seconds()))
        tell(progress)

    context = Context(
        data=WithoutHeldOut(job.data, job.seed) if job.recipe.promises else job.data,
        original=job.model,
        runtime=job.runtime,
        target=job.target,
        device=job.device,
        seed=job.seed,
        scratch=scratch,
        tell=heard,
        others=job.others,
    )
    made = step.apply(model, context)
    if job.recipe.promises:
        made = dataclasses.replace(made, notes=(*made.notes, HALF_SEEN))
    if step.depends_on_target and job.asked.note:
        made = dataclasses.replace(made, notes=(*made.notes, job.asked.note))
    return made, seconds()


def _reopen(job: Job, stage: Stage) -> Candidate:
    """The candidate after a kept stage."""
    if stage.archive is None and stage.exits is not None:
        candidate = Candidate(job.model.spec, onnx=stage.file, segments=stage.segments)
    else:
        candidate = open_model(stage.archive or stage.file, job.model.spec)
    return dataclasses.replace(candidate, sparse=stage.sparse, exits=stage.exits)
