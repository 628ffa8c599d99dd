import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.arrays import candidate
from workers import report
from workers.base import Measurement, Target
from workers.data import Dataset, open_dataset
from workers.deploy.parity import Parity
from workers.methods.structured_pruning import StructuredPruning
from workers.pipeline import Job, Outcome
from workers.recipe import parse_recipe, read_recipe, settings_of
from workers.report import write_report
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import Stage

MEASUREMENT = Measurement(
    name="accuracy", value=0.9, low=0.8, high=0.95, unit="share", better="higher", split="test", samples=50
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    labels = np.arange(90) % 3
    images = (labels[:, None, None] * 80 + np.arange(64).reshape(8, 8)).astype(np.uint8)
    images[:, 0, 0] = np.arange(90)
    np.savez(tmp_path / "bünt.npz", images=images, labels=labels)
    return open_dataset(tmp_path / "bünt.npz", cache=tmp_path / "cache", seed=0)


@pytest.fixture
def job(dataset: Dataset, tmp_path: Path) -> Job:
    return Job(
        model=candidate(None),
        data=dataset.prepare(candidate(None).spec.preprocessing, tmp_path / "cache"),
        dataset=dataset.sha256,
        recipe=parse_recipe("name: Größe 🚀\nsteps: [{method: structured_pruning}]", "r"),
        folder=tmp_path / "stages",
        runtime=OnnxRuntime(),
        target=Target(host="here"),
        device=torch.device("cpu"),
        seed=3,
    )


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    stages = []
    for index, method in enumerate((None, "structured_pruning")):
        folder = tmp_path / "stages" / str(index)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"onnx %d" % index)
        (folder / "model.pt2").write_bytes(b"pt2 %d" % index)
        stage = Stage(
            index=index,
            method=method,
            settings={"amount": 0.5} if method else {},
            key=str(index),
            file=folder / "model.onnx",
            seconds=1.23456,
            cached=bool(index),
            notes=("A note.",),
            parity=Parity(samples=5, logit_error=1e-6, same_answer=1),
            measurements=(MEASUREMENT,),
        )
        stages.append(stage)
    return Outcome(tuple(stages), stages[-1].archive, ("A warning.",))


def written(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return read


def test_fills_the_folder(job: Job, outcome: Outcome, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    write_report(job, outcome, dataset, ("A problem.",), out)
    assert {file.name for file in out.iterdir()} == set(report.FILES) - {"exits.json"}
    assert (out / "model.onnx").read_bytes() == b"onnx 1"
    assert (out / "model.pt2").read_bytes() == b"pt2 1"
    assert read_recipe(out / "recipe.yaml") == job.recipe


def test_says_what_was_done_to_what(job: Job, outcome: Outcome, dataset: Dataset, tmp_path: Path) -> None:
    write_report(job, outcome, dataset, ("A problem.",), tmp_path / "out")
    said = written(tmp_path / "out")
    assert said["model"]["sha256"] == "0" * 64
    assert said["dataset"]["name"] == "bünt"
    assert said["dataset"]["sha256"] == dataset.sha256
    assert sum(said["dataset"]["samples"].values()) == 90
    assert said["dataset"]["notes"] == ["A problem."]
    assert said["recipe"]["name"] == "Größe 🚀"
    (step,) = said["recipe"]["steps"]
    assert step == {"method": "structured_pruning", **settings_of(StructuredPruning())}
    assert said["seed"] == 3
    assert said["warnings"] == ["A warning."]
    assert said["baseline"]["method"] is None
    (stage,) = said["stages"]
    assert stage == {
        "index": 1,
        "method": "structured_pruning",
        "settings": {"amount": 0.5},
        "seconds": 1.235,
        "from_cache": True,
        "notes": ["A note."],
        "parity": {"samples": 5, "logit_error": 1e-6, "same_answer": 1.0},
        "measurements": [MEASUREMENT.model_dump(mode="json")],
    }
    assert {"host", "cpu"} <= said["host"].keys()
    assert {"python", "torch", "onnxruntime"} <= said["versions"].keys()


def test_replaces_its_own_files_and_no_others(
    job: Job, outcome: Outcome, dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (*report.FILES, "mine.txt"):
        (out / name).write_bytes(b"old")
    write_report(job, replace(outcome, archive=None), dataset, (), out)
    assert {file.name for file in out.iterdir()} == {"model.onnx", "recipe.yaml", "report.json", "mine.txt"}
    assert [file.name for file in out.iterdir() if file.read_bytes() == b"old"] == ["mine.txt"]


def test_a_full_disk_leaves_the_folder_as_it_was(
    job: Job, outcome: Outcome, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"old")
    copy = shutil.copyfile

    def fill_up(source: Path, target: Path) -> None:
        copy(source, target)
        if target.name == "model.pt2":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_report(job, outcome, dataset, (), out)
    assert [(file.name, file.read_bytes()) for file in out.iterdir()] == [("model.onnx", b"old")]


def test_a_file_name_that_is_no_text(job: Job, outcome: Outcome, dataset: Dataset, tmp_path: Path) -> None:
    spec = job.model.spec.model_copy(update={"name": "\udcff.pt"})
    write_report(replace(job, model=replace(job.model, spec=spec)), outcome, dataset, (), tmp_path / "out")
    assert written(tmp_path / "out")["model"]["name"] == "?.pt"


def test_a_number_that_json_does_not_know_is_an_error(
    job: Job, outcome: Outcome, dataset: Dataset, tmp_path: Path
) -> None:
    """Python would write NaN, which no other reader takes."""
    broken = MEASUREMENT.model_copy(update={"value": float("nan")})
    stages = (outcome.stages[0], replace(outcome.stages[1], measurements=(broken,)))
    with pytest.raises(ValueError, match="nan"):
        write_report(job, replace(outcome, stages=stages), dataset, (), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
