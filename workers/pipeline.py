"""run(model, dataset, recipe) -> stages: each step applied, kept, exported, compared and measured.

Resume is caching: a stage is kept under a key of everything it depends on, so a restarted run, and another
recipe with the same beginning, go on from the last finished stage. Knows no queue and no database.
"""

import dataclasses
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import workers
from workers.base import (
    Artefact,
    Bench,
    Candidate,
    Context,
    LabelledData,
    Measurement,
    Method,
    Progress,
    Runtime,
    Target,
)
from workers.catalog import MEASURES
from workers.data import warn_if_trained_on
from workers.deploy.export import export_onnx
from workers.deploy.parity import Parity, check_parity
from workers.errors import DatasetRefused, StepFailed
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.host import versions
from workers.recipe import Recipe, settings_of, step_id

PARITY_SAMPLES = 256


@dataclass(frozen=True)
class Stage:
    """One step as it was carried out; stage 0 is the model as uploaded.

    file: the exported ONNX. seconds: what the step took when it was really done. cached: it was not done
    again this time.
    """

    index: int
    method: str | None
    settings: Mapping[str, Any]
    key: str
    file: Path
    seconds: float
    cached: bool
    notes: tuple[str, ...]
    parity: Parity | None
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Outcome:
    """stages[0] is the baseline. archive: the last stage as a trainable `.pt2`, None for an ONNX upload."""

    stages: tuple[Stage, ...]
    archive: Path | None
    warnings: tuple[str, ...]


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


def run(job: Job) -> Outcome:
    """Carry out the recipe. Raises a ParedownError; finished stages stay for the next attempt."""
    _check(job)
    candidate: Candidate | None = job.model
    stages: list[Stage] = []
    keys = list(_keys(job))
    for index, (step, key) in enumerate(zip((None, *job.recipe.steps), keys, strict=True)):
        # Another run with the same beginning may be at it right now; then its result is waited for.
        with FileLock(_folder(job) / f"{key}.lock"):
            kept = _kept(job, key)
            if kept is None:
                before = candidate or _reopen(job, keys[index - 1])
                kept, candidate = _carry_out(job, index, step, key, before)
            elif index > 0:
                candidate = None  # opened again only when a later step needs it
        stages.append(kept)
        job.tell(Event(index, kept.method, Progress("done", 1.0), kept))
    stages = _measured_together(job, stages)
    archive = job.folder / keys[-1] / "model.pt2"
    return Outcome(tuple(stages), archive if archive.exists() else None, _warnings(stages[0]))


def _folder(job: Job) -> Path:
    job.folder.mkdir(parents=True, exist_ok=True)
    return job.folder


def _check(job: Job) -> None:
    """What can be known to fail is refused before hours of work."""
    known, given = job.model.spec.classes, len(job.data.classes)
    if known != given:
        raise DatasetRefused(
            "model and dataset",
            f"do not belong together: the model tells {known} classes apart, the dataset has {given}.",
            "Bring the data that the model was trained for.",
        )
    for index, step in enumerate(job.recipe.steps):
        if job.model.graph is None and step.needs_graph:
            raise StepFailed(
                f"step {index + 1} ({step_id(step)})",
                "works on a trainable model, and an ONNX file has no graph to train.",
                "Bring the model as .pt2, or as weights with --arch. Without steps an ONNX file is measured.",
            )


def _carry_out(
    job: Job, index: int, step: Method | None, key: str, model: Candidate
) -> tuple[Stage, Candidate]:
    """Do the step, keep and measure what came out. A stage appears in the folder whole or not at all."""
    method = None if step is None else step_id(step)

    def tell(progress: Progress) -> None:
        job.tell(Event(index, method, progress))

    scratch, partial = job.folder / f"{key}.scratch", job.folder / f"{key}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for folder in (scratch, partial):
        folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if step is not None:
        context = Context(job.data, job.model, job.device, job.seed, scratch, tell)
        model = step.apply(dataclasses.replace(model, notes=()), context)
    seconds = time.monotonic() - started
    file = partial / "model.onnx"
    tell(Progress("exporting", 1.0))
    export_onnx(model, file, job.data.classes)
    parity = check_parity(model, file, _inputs(job.data), job.runtime)
    if model.graph is not None:
        write_archive(trace(model.graph, model.spec.preprocessing), partial / "model.pt2")
    bench = Bench(job.data, job.runtime, job.target, tell)
    measurements = [
        measurement
        for measure in MEASURES.values()
        if not measure.together
        for measurement in measure().take([Artefact(file, model)], bench)[0]
    ]
    kept = job.folder / key
    stage = Stage(
        index=index,
        method=method,
        settings={} if step is None else settings_of(step),
        key=key,
        file=kept / "model.onnx",
        seconds=seconds,
        cached=False,
        notes=model.notes,
        parity=parity,
        measurements=tuple(measurements),
    )
    _write_stage(stage, partial / "stage.json")
    partial.rename(kept)
    shutil.rmtree(scratch)
    return stage, model


def _measured_together(job: Job, stages: list[Stage]) -> list[Stage]:
    """Add what only compares side by side: latencies of all stages from one session."""
    artefacts = [Artefact(stage.file, dataclasses.replace(job.model, onnx=stage.file)) for stage in stages]
    last = stages[-1]
    bench = Bench(
        job.data, job.runtime, job.target, lambda progress: job.tell(Event(last.index, last.method, progress))
    )
    for measure in MEASURES.values():
        if measure.together:
            taken = measure().take(artefacts, bench)
            stages = [
                dataclasses.replace(stage, measurements=(*stage.measurements, *more))
                for stage, more in zip(stages, taken, strict=True)
            ]
    return stages


def _inputs(data: LabelledData) -> Iterator[torch.Tensor]:
    for inputs, _ in itertools.islice(data.batches("validation", 64), PARITY_SAMPLES // 64):
        yield inputs


def _warnings(baseline: Stage) -> tuple[str, ...]:
    counts = [
        (round((m.value or 0) * (m.samples or 0)), m.samples or 0)
        for split in ("validation", "test")
        for m in baseline.measurements
        if m.name == "accuracy" and m.split == split
    ]
    warning = warn_if_trained_on(*counts[0], *counts[1])
    return () if warning is None else (warning,)


# --- what is kept ----------------------------------------------------------------------------------


def _keys(job: Job) -> Iterator[str]:
    """One key per stage, the baseline's first; each covers everything that came before it."""
    start = {
        "model": job.model.spec.model_dump(mode="json"),
        "dataset": job.dataset,
        "seed": job.seed,
        "device": str(job.device),
        "target": job.target.model_dump(mode="json"),
        "code": code_sha256(),
        "versions": versions(),
    }
    key = _digest(json.dumps(start, sort_keys=True))
    yield key
    for step in job.recipe.steps:
        key = _digest(f"{key} {step_id(step)} {json.dumps(settings_of(step), sort_keys=True)}")
        yield key


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def code_sha256() -> str:
    """SHA-256 of the sources under workers/: other code, other results."""
    root = Path(workers.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _kept(job: Job, key: str) -> Stage | None:
    path = job.folder / key / "stage.json"
    if not path.exists():
        return None
    written = json.loads(path.read_text())
    written["measurements"] = tuple(Measurement.model_validate(m) for m in written["measurements"])
    written["parity"] = None if written["parity"] is None else Parity.model_validate(written["parity"])
    written["notes"] = tuple(written["notes"])
    return Stage(**written, cached=True, key=key, file=job.folder / key / "model.onnx")


def _write_stage(stage: Stage, path: Path) -> None:
    written = {
        "index": stage.index,
        "method": stage.method,
        "settings": dict(stage.settings),
        "seconds": stage.seconds,
        "notes": stage.notes,
        "parity": None if stage.parity is None else stage.parity.model_dump(),
        "measurements": [m.model_dump(mode="json") for m in stage.measurements],
    }
    path.write_text(json.dumps(written))


def _reopen(job: Job, key: str) -> Candidate:
    """The candidate after a kept stage."""
    archive = job.folder / key / "model.pt2"
    return open_model(archive if archive.exists() else job.folder / key / "model.onnx", job.model.spec)
