"""`paredown run`: from the files on the command line to a folder with the result."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from app.terminal import RunProgress, show_outcome
from db.settings import Settings
from workers.base import Candidate
from workers.data import open_dataset
from workers.errors import ParedownError, SomethingMissing
from workers.graph.importing import import_model
from workers.pipeline import Job, check, run
from workers.places import choose
from workers.recipe import read_recipe
from workers.report import write_report

SPECIMENS = 8


def run_recipe(
    recipe_file: Path,
    model_file: Path,
    dataset_source: str,
    out: Path,
    *,
    architecture: str | None,
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    others: Mapping[str, tuple[Path, str | None]],
    seed: int,
    runtime: str,
    folder: Path,
) -> None:
    """Import, run, print and write.

    others: files of further models, with their architectures. runtime: as `workers.places.choose` takes it.
    folder: for the imported models, while this works.
    """
    recipe = read_recipe(recipe_file)
    settings = _settings()
    choice = choose(runtime, settings.threads)
    device = _device(settings.device)
    with RunProgress(recipe) as progress:
        progress.say(f"Reading the dataset {dataset_source}")
        dataset = open_dataset(dataset_source, cache=settings.data / "datasets", seed=seed)
        square = dataset.smallest == dataset.largest and dataset.smallest[0] == dataset.smallest[1]
        imported = partial(
            _imported,
            folder=folder,
            progress=progress,
            size=size,
            mean=mean,
            std=std,
            samples=dataset.specimens(SPECIMENS),
            data_size=dataset.smallest[0] if square else None,
            seconds=settings.import_seconds,
        )
        candidate = imported(model_file, architecture)
        further = {name: imported(*source) for name, source in others.items()}
        check(candidate, dataset.classes, recipe, further)
        progress.say("Decoding the pictures")
        data = dataset.prepare(candidate.spec.preprocessing, settings.data / "datasets")
        job = Job(
            model=candidate,
            data=data,
            dataset=dataset.sha256,
            recipe=recipe,
            folder=settings.data / "stages",
            runtime=choice.steps.runtime,
            target=choice.steps.target,
            device=device,
            seed=seed,
            tell=progress.take,
            others=further,
            choice=choice,
        )
        outcome = run(job)
    write_report(job, outcome, dataset, data.problems, out)
    show_outcome(outcome, data.problems, out)


def _imported(
    file: Path, architecture: str | None, *, folder: Path, progress: RunProgress, **how: Any
) -> Candidate:
    """In a folder of its own below `folder`. how: as for every model of this run."""
    return import_model(
        file,
        Path(tempfile.mkdtemp(dir=folder)),
        architecture=architecture,
        told=lambda step: progress.say(f"Checking {file.name}: {step}"),
        **how,
    )


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise ParedownError(
            f"PAREDOWN_{str(first['loc'][0]).upper()}={first['input']}",
            f"{first['msg']}.",
            "Correct the variable of the environment, or unset it.",
        ) from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch says it with AssertionError, RuntimeError and NotImplementedError
        raise SomethingMissing(
            f"PAREDOWN_DEVICE={name}",
            "is no device that torch can use here.",
            "Use `cpu`, or install a torch that was built for this device.",
        ) from error
    return device
