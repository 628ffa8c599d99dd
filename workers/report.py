"""What a run leaves in a folder: the exported file, the trainable archive, the recipe and the report."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from workers.base import LabelledData
from workers.data import Dataset
from workers.host import host_facts, versions
from workers.pipeline import Job, Outcome
from workers.recipe import write_recipe
from workers.stages import Stage

FILES = ("model.onnx", "model.pt2", "exits.json", "recipe.yaml", "report.json")


def write_report(
    job: Job, outcome: Outcome, dataset: Dataset, problems: tuple[str, ...], folder: Path
) -> None:
    """Fill `folder` with FILES, each of them whole; other files there stay.

    Nothing written names the machine's user or a path.
    """
    last = outcome.stages[-1]
    report = {
        "model": job.model.spec.model_dump(mode="json"),
        "dataset": _dataset(dataset, job.data, problems),
        "recipe": job.recipe.model_dump(mode="json"),
        "seed": job.seed,
        "baseline": _stage(outcome.stages[0]),
        "stages": [_stage(stage) for stage in outcome.stages[1:]],
        "warnings": list(outcome.warnings),
        "host": host_facts().model_dump(mode="json"),
        "versions": versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        made = Path(partial)
        shutil.copyfile(last.file, made / "model.onnx")
        if last.exits is not None:
            shutil.copyfile(last.file.with_name("exits.json"), made / "exits.json")
        if outcome.archive is not None:
            shutil.copyfile(outcome.archive, made / "model.pt2")
        (made / "recipe.yaml").write_text(write_recipe(job.recipe), encoding="utf-8")
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        # A file's name need not be text.
        (made / "report.json").write_text(text + "\n", encoding="utf-8", errors="replace")
        for name in FILES:
            if (made / name).exists():
                (made / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier run into the same folder


def _dataset(dataset: Dataset, data: LabelledData, problems: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "classes": list(dataset.classes),
        "samples": {split: len(data.labels(split)) for split in dataset.splits},
        "notes": list(problems),
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "index": stage.index,
        "method": stage.method,
        "settings": dict(stage.settings),
        "seconds": round(stage.seconds, 3),
        "from_cache": stage.cached,
        "notes": list(stage.notes),
        "parity": None if stage.parity is None else stage.parity.model_dump(),
        "measurements": [m.model_dump(mode="json") for m in stage.measurements],
    }
