"""Epoch checkpoints: one file, replaced as a whole, so that a kill at any moment leaves the last good one."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workers.base import Context
from workers.training.settings import TrainingSettings
from workers.writing import written_whole

FILE_NAME = "training.pt"


def fingerprint(model: nn.Module, settings: TrainingSettings, context: Context) -> bytes:
    """SHA-256 of what decides how training goes: settings, seed, device, labels and starting weights.

    ``context.scratch`` belongs to one step, so this only has to catch a folder that is used again.
    """
    digest = hashlib.sha256()
    digest.update(f"{type(settings).__qualname__} {settings.model_dump_json()} {context.seed} ".encode())
    digest.update(context.device.type.encode())
    digest.update(context.data.labels("train").tobytes())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()


def save(folder: Path, key: bytes, state: dict[str, Any]) -> None:
    """Replace the checkpoint in ``folder``; on return it has reached the disk."""
    content = io.BytesIO()
    torch.save(state, content)
    with written_whole(folder / FILE_NAME) as partial, partial.open("wb") as file:
        file.write(_seal(key, content.getbuffer()))
        file.write(content.getbuffer())


def load(folder: Path, key: bytes, device: torch.device) -> dict[str, Any] | None:
    """The state saved under ``key``; None when there is none, another's or a damaged one."""
    try:
        content = memoryview((folder / FILE_NAME).read_bytes())
    except OSError:
        return None
    seal, state = content[: len(key)], content[len(key) :]
    # torch.load would notice neither a flipped bit nor another's file.
    if seal != _seal(key, state):
        return None
    loaded: dict[str, Any] = torch.load(io.BytesIO(state), map_location=device, weights_only=True)
    return loaded


def _seal(key: bytes, state: memoryview) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(state)
    return digest.digest()
