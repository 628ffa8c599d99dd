"""The one door for models: a file from anywhere in, a candidate out."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from workers.base import Candidate, ModelSpec
from workers.errors import ModelRefused
from workers.graph.archive import read_archive
from workers.graph.modules import to_modules
from workers.graph.onnx_file import read_onnx
from workers.graph.program import as_written
from workers.graph.sandbox import RUN_SHARE, run_restricted


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
    seconds: for the whole check; running the model once gets a fifth of it.
    Raises ModelRefused; then nothing stays in `folder`.
    """
    before = _state(path)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        request = {
            "architecture": architecture,
            "size": size,
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
            "samples": None if samples is None else _saved(samples, Path(work)),
            "data_size": data_size,
            "run_seconds": seconds / RUN_SHARE,
            "folder": work,
            **_identity_and_limits(path, length_bytes=before[0]),
        }
        reply = run_restricted("workers.graph.inspection", request, seconds=seconds, told=told)
        if _state(path) != before:
            raise ModelRefused(
                path.name, "changed while it was read.", "Upload it again when it is complete."
            )
        made, spec = _checked(Path(work), reply, request)
        candidate = open_model(made, spec)
        kept = made.replace(folder / made.name)
    return Candidate(spec, graph=candidate.graph, onnx=None if candidate.onnx is None else kept)


def open_model(path: Path, spec: ModelSpec) -> Candidate:
    """A candidate from a canonical file; `.pt2` becomes a trainable graph. Raises ModelRefused."""
    if path.suffix == ".onnx":
        read_onnx(path)
        return Candidate(spec, onnx=path)
    graph = to_modules(as_written(read_archive(path)), spec.preprocessing.shape)
    return Candidate(spec, graph=graph)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _saved(samples: np.ndarray, folder: Path) -> str:
    np.save(folder / "samples.npy", samples)
    return str(folder / "samples.npy")


def _identity_and_limits(path: Path, *, length_bytes: int) -> dict[str, Any]:
    """What the child looks at and how much it may take, by the length of the file."""
    return {
        "path": str(path.resolve()),
        "name": path.name,
        "sha256": file_sha256(path),
        "memory_bytes": (3 << 30) + 8 * length_bytes,
        "file_bytes": (64 << 20) + 4 * length_bytes,
    }


def _state(path: Path) -> tuple[int, int, int]:
    """(length in bytes, inode, last change in ns). Raises ModelRefused for what cannot be read."""
    try:
        if path.is_file() and os.access(path, os.R_OK):
            state = path.stat()
            return state.st_size, state.st_ino, state.st_mtime_ns
    except OSError:
        pass  # e.g. a name longer than the system takes
    raise ModelRefused(str(path)[:300], "is not a file that can be read.", "Give the path of a model file.")


def _checked(work: Path, reply: dict[str, Any], request: dict[str, Any]) -> tuple[Path, ModelSpec]:
    """The file and its description, as far as the child can be trusted: it met a stranger's file."""
    made = [file for name in ("model.pt2", "model.onnx") if (file := work / name).is_file()]
    try:
        spec = ModelSpec.model_validate(reply["spec"] | {key: request[key] for key in ("name", "sha256")})
    except (KeyError, TypeError, ValidationError) as error:
        raise ModelRefused(
            request["name"], f"was described wrongly ({error!r:.120}).", "Upload it again."
        ) from error
    if len(made) != 1 or made[0].is_symlink():
        raise ModelRefused(request["name"], f"became {len(made)} files, not one.", "Upload it again.")
    return made[0], spec
