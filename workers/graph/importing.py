"""The one door for models: a file from anywhere in, a candidate out."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from workers.base import Candidate, ModelSpec
from workers.errors import ModelRefused
from workers.graph.archive import read_archive
from workers.graph.modules import to_modules
from workers.graph.program import as_written
from workers.graph.sandbox import run_restricted


def import_model(
    path: Path,
    folder: Path,
    *,
    architecture: str | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    samples: np.ndarray | None = None,
    data_size: int | None = None,
    seconds: int = 120,
    told: Callable[[str], None] = lambda _: None,
) -> Candidate:
    """Check `path` in a restricted child and keep a canonical `model.pt2` or `model.onnx` in `folder`.

    architecture: name for a file of weights. size, mean, std: preprocessing where it is not the default.
    samples: a few pictures, uint8 (N, H, W, C), on which the rebuilt model must equal the original.
    data_size: side of the data's pictures, for architectures that take any.
    Raises ModelRefused; then nothing stays in `folder`.
    """
    if not path.is_file():
        raise ModelRefused(str(path), "is not there or is not a file.", "Give the path of a model file.")
    length = path.stat().st_size
    with tempfile.TemporaryDirectory(dir=folder) as work:
        if samples is not None:
            np.save(Path(work) / "samples.npy", samples)
        request = {
            "path": str(path.resolve()),
            "name": path.name,
            "sha256": file_sha256(path),
            "folder": work,
            "architecture": architecture,
            "size": size,
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
            "samples": None if samples is None else str(Path(work) / "samples.npy"),
            "data_size": data_size,
            "memory_bytes": (4 << 30) + 8 * length,
        }
        reply = run_restricted("workers.graph.inspection", request, seconds=seconds, told=told)
        spec = ModelSpec.model_validate(reply["spec"])
        made = next(file for file in Path(work).iterdir() if file.name in ("model.pt2", "model.onnx"))
        kept = made.replace(folder / made.name)
    return open_model(kept, spec)


def open_model(path: Path, spec: ModelSpec) -> Candidate:
    """A candidate from a canonical file; `.pt2` becomes a trainable graph."""
    if path.suffix == ".onnx":
        return Candidate(spec, onnx=path)
    graph = to_modules(as_written(read_archive(path)), spec.preprocessing.shape)
    return Candidate(spec, graph=graph)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
