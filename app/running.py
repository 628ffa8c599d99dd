"""`paredown run`: from the files on the command line to a folder with the result."""

from collections.abc import Sequence
from pathlib import Path

import torch

from app.terminal import RunProgress, show_outcome
from db.settings import Settings
from workers.base import Target
from workers.catalog import RUNTIMES
from workers.data import open_dataset
from workers.graph.importing import import_model
from workers.host import host_facts
from workers.pipeline import Job, run
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
    seed: int,
    folder: Path,
) -> None:
    """Import, run, print and write. folder: for the imported model, while this works."""
    settings = Settings()
    recipe = read_recipe(recipe_file)
    with RunProgress(recipe) as progress:
        progress.say(f"Reading the dataset {dataset_source}")
        dataset = open_dataset(dataset_source, cache=settings.data / "datasets", seed=seed)
        square = dataset.smallest == dataset.largest and dataset.smallest[0] == dataset.smallest[1]
        candidate = import_model(
            model_file,
            folder,
            architecture=architecture,
            size=size,
            mean=mean,
            std=std,
            samples=dataset.specimens(SPECIMENS),
            data_size=dataset.smallest[0] if square else None,
            seconds=settings.import_seconds,
            told=lambda step: progress.say(f"Checking {model_file.name}: {step}"),
        )
        progress.say("Decoding the pictures")
        data = dataset.prepare(candidate.spec.preprocessing, settings.data / "datasets")
        job = Job(
            model=candidate,
            data=data,
            dataset=dataset.sha256,
            recipe=recipe,
            folder=settings.data / "stages",
            runtime=RUNTIMES["onnxruntime"](),
            target=Target(host=host_facts().host, threads=settings.threads),
            device=torch.device(settings.device),
            seed=seed,
            tell=progress.take,
        )
        outcome = run(job)
    write_report(job, outcome, dataset, data.problems, out)
    show_outcome(outcome, data.problems, out)
