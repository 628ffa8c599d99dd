"""Weights from a file: a state dict (`.pt`, `.pth`, loaded with ``weights_only=True``) or `.safetensors`."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from workers.errors import ModelRefused

#: Under what name training scripts keep the weights in a checkpoint.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
#: What wrappers put before every name (DataParallel, torch.compile).
_PREFIXES = ("module.", "_orig_mod.")

_CONVERT = """A file that holds a whole module runs code when it is opened, so it is never taken. \
Where the model's class can be imported, three lines make a file that is safe and needs no class:

    model = torch.load({name!r}, weights_only=False).eval()   # only if you made this file yourself
    program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({{0: Dim('N')}},))
    torch.export.save(program, 'model.pt2')"""
_CONVERT_SCRIPT = """TorchScript files are programs and cannot be trained or pruned. \
Export the original model instead (`from torch.export import Dim`):

    model = MyModel(); model.load_state_dict(...); model.eval()
    program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: Dim('N')},))
    torch.export.save(program, 'model.pt2')"""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name. Raises ModelRefused; code in the file is not run."""
    if path.suffix == ".safetensors" or _is_safetensors(path):
        weights = _read_safetensors(path)
    else:
        weights = _read_state_dict(path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelRefused(
                f"{path.name}: {name}",
                "holds NaN or infinite weights.",
                "Upload a checkpoint from before training went wrong.",
            )
    return weights


def _is_safetensors(path: Path) -> bool:
    """An 8-byte length, then a JSON header."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelRefused(
            path.name, f"is not a whole .safetensors file ({error}).", "Save and upload it again."
        ) from error


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
        if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
            raise ModelRefused(path.name, "is a TorchScript file.", _CONVERT_SCRIPT)
        _check_size(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "Weights only load failed" in str(error):
            raise ModelRefused(
                path.name, "holds Python objects, not only weights.", _CONVERT.format(name=path.name)
            ) from error
        raise _damaged(path, error) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
    ) as error:
        raise _damaged(path, error) from error
    return _unwrapped(path, loaded)


def _check_size(path: Path) -> None:
    """torch stores tensors uncompressed; a zip that declares more than it holds is a bomb."""
    with zipfile.ZipFile(path) as file:
        declared = sum(info.file_size for info in file.infolist())
    if declared > path.stat().st_size:
        raise ModelRefused(
            path.name,
            f"declares {declared:,} bytes of content.",
            "Save it with torch.save(model.state_dict(), …).",
        )


def _damaged(path: Path, error: Exception) -> ModelRefused:
    return ModelRefused(
        path.name,
        f"is damaged, cut off, or not a file that torch.save() wrote ({str(error)[:120]}).",
        "Save it again with torch.save(model.state_dict(), 'weights.pt').",
    )


def _unwrapped(path: Path, loaded: Any) -> dict[str, torch.Tensor]:
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelRefused(
            path.name,
            f"holds a {type(loaded).__name__}, not weights by name.",
            "Save it with torch.save(model.state_dict(), 'weights.pt').",
        )
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelRefused(
                f"{path.name}: {str(name)[:80]}",
                f"is a {type(tensor).__name__}, not a tensor.",
                "Save only model.state_dict().",
            )
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if tensor.layout != torch.strided or tensor.numel() > tensor.untyped_storage().nbytes():
            raise ModelRefused(
                f"{path.name}: {name[:80]}",
                f"claims the shape {list(tensor.shape)} without holding that many numbers.",
                "Save only model.state_dict().",
            )
        weights[name] = tensor.detach()
    return weights
