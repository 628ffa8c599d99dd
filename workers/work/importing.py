"""Kind `import`: a model or a dataset is checked, and what was found is kept."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session
from torch import nn

from db import datasets, models_
from db.artifacts import Artifacts
from db.models import Dataset as DatasetRow
from db.models import Model as ModelRow
from db.session import reading
from workers.assignment import Assignment
from workers.base import Candidate
from workers.data import Dataset
from workers.graph.blocks import blocks_of
from workers.graph.importing import import_model
from workers.measures.macs import count_macs
from workers.measures.parameters import count_weights
from workers.work.files import open_data, placed
from workers.work.pictures import specimens
from workers.work.sample import trained_sample

#: What the check of a model tells, more or less; for the bar.
STEPS = 8
SPECIMENS = 16
MAX_LAYERS = 2000


def do(assignment: Assignment) -> None:
    """subject_id: the model or dataset. request: {"noun": "model" | "dataset" | "sample_model", …};
    for a model also "architecture", "size", "mean" and "std" where they are not the default."""
    {"model": _model, "sample_model": _sample, "dataset": _dataset}[assignment.job.request["noun"]](
        assignment
    )


def _sample(assignment: Assignment) -> None:
    """Train the sample's net first, then take it in like any other."""
    file, architecture = trained_sample(assignment)
    sha256 = Artifacts(assignment.settings.artifacts).add(file)

    def uploaded(session: Session) -> None:
        session.get_one(ModelRow, assignment.job.subject_id).upload_sha256 = sha256

    assignment.write(uploaded)
    _take_in(assignment, file, {"architecture": architecture, "size": 28})


def _model(assignment: Assignment) -> None:
    with reading(assignment.settings.database) as session:
        row = session.get_one(ModelRow, assignment.job.subject_id)
    request = assignment.job.request
    asked = {key: request[key] for key in ("architecture", "size", "mean", "std") if request.get(key)}
    _take_in(assignment, placed(assignment, row.upload_sha256, row.name), asked)


def _take_in(assignment: Assignment, file: Path, asked: dict[str, Any]) -> None:
    settings, job = assignment.settings, assignment.job
    made = assignment.folder / "canonical"
    made.mkdir(exist_ok=True)

    said: list[str] = []

    def told(step: str) -> None:
        said.append(step)
        assignment.tell(f"Checking: {step}", share=min(len(said) / STEPS, 0.95))

    told("starting a restricted process")
    candidate = import_model(file, made, seconds=settings.import_seconds, told=told, **asked)
    told("counting its layers")
    canonical = next(made.iterdir())
    facts = _facts(candidate, canonical)
    sha256 = Artifacts(settings.artifacts).add(canonical)
    spec = candidate.spec.model_dump(mode="json")
    assignment.write(
        lambda session: models_.imported(
            session, job.subject_id, spec=spec, facts=facts, file_sha256=sha256, file_name=canonical.name
        )
    )


def _facts(candidate: Candidate, file: Path) -> dict[str, Any]:
    """layers: name, type, parameters; blocks: the graph to look at. None where an ONNX file does not tell."""
    graph = candidate.graph
    facts: dict[str, Any] = {"size_bytes": file.stat().st_size, "layers": None, "blocks": None, "macs": None}
    if graph is None:
        return facts | {"parameters": count_weights(file)}
    leaves = [(name, module) for name, module in graph.named_modules() if name and not any(module.children())]
    return facts | {
        "parameters": sum(parameter.numel() for parameter in graph.parameters()),
        "macs": count_macs(graph, candidate.spec),
        "layers": [_layer(name, module) for name, module in leaves[:MAX_LAYERS]],
        "blocks": blocks_of(graph),
    }


def _layer(name: str, module: nn.Module) -> dict[str, Any]:
    return {
        "name": name,
        "type": type(module).__name__,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "about": module.extra_repr(),
    }


def _dataset(assignment: Assignment) -> None:
    with reading(assignment.settings.database) as session:
        row = session.get_one(DatasetRow, assignment.job.subject_id)
    assignment.tell("Reading and checking the pictures")
    dataset = open_data(assignment, row)
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    facts = {
        "classes": [
            {"name": name, "count": int(count)} for name, count in zip(dataset.classes, counts, strict=True)
        ],
        "splits": {split: len(indices) for split, indices in dataset.splits.items()},
        "channels": dataset.channels,
        "smallest": list(dataset.smallest),
        "largest": list(dataset.largest),
        "problems": list(dataset.problems),
        "samples": _samples(dataset, Artifacts(assignment.settings.artifacts)),
    }
    assignment.write(
        lambda session: datasets.imported(
            session, assignment.job.subject_id, sha256=dataset.sha256, facts=facts
        )
    )


def _samples(dataset: Dataset, artifacts: Artifacts) -> Sequence[dict[str, str]]:
    """A few pictures as PNG files of the store, each in the middle of a square of at most 128 pixels."""
    told, train = [], dataset.splits["train"]
    for index in train[specimens(dataset.labels[train], SPECIMENS)]:
        picture = dataset.pictures[int(index)].convert("RGB")
        picture.thumbnail((128, 128), Image.Resampling.LANCZOS)
        square = Image.new("RGBA", (max(picture.size),) * 2)
        square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
        png = io.BytesIO()
        square.save(png, "PNG")
        file = artifacts.temporary()
        file.write_bytes(png.getvalue())
        told.append({"sha256": artifacts.add(file), "class": dataset.classes[dataset.labels[index]]})
        file.unlink()
    return told
