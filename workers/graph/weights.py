"""Weights from a file: a state dict (`.pt`, `.pth`, loaded with ``weights_only=True``) or `.safetensors`."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from workers.errors import ModelRefused
from workers.graph.operators import DTYPES
from workers.graph.records import check_finite

#: Under what name training scripts keep the weights in a checkpoint.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
#: What wrappers put before every name (DataParallel, torch.compile).
_PREFIXES = ("module.", "_orig_mod.")
_SAVE = "Save the weights alone: torch.save(model.state_dict(), 'weights.pt')."

_CONVERT = """A file that holds a whole module runs code when it is opened, so it is never taken. \
Where the model's class can be imported, four lines make a file that is safe and needs no class:

    model = torch.load({name!r}, weights_only=False).eval()   # only if you made this file yourself
    batch = {{0: torch.export.Dim('N')}}
    program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=(batch,))
    torch.export.save(program, 'model.pt2')"""
_CONVERT_SCRIPT = """TorchScript files are programs and cannot be trained or pruned. \
Export the original model instead:

    model = MyModel(); model.load_state_dict(...); model.eval()
    batch = {0: torch.export.Dim('N')}
    program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=(batch,))
    torch.export.save(program, 'model.pt2')"""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name. Raises ModelRefused; code in the file is not run."""
    if path.suffix == ".safetensors" or _is_safetensors(path):
        weights = _read_safetensors(path)
    else:
        weights = _read_state_dict(path)
    length, total = path.stat().st_size, 0
    for name, tensor in weights.items():
        _check_tensor(f"{path.name}: {name[:120]}", tensor, length)
        total += tensor.nbytes
        if total > 4 * length:  # tied weights have several names, but not thousands
            raise ModelRefused(path.name, f"makes {total:,} bytes of weights out of {length:,}.", _SAVE)
    if not any(tensor.is_floating_point() for tensor in weights.values()):
        raise ModelRefused(path.name, f"holds {len(weights)} tensors, none of them weights.", _SAVE)
    return {name: tensor.detach() for name, tensor in weights.items()}


def _check_tensor(where: str, tensor: torch.Tensor, length: int) -> None:
    """Raises ModelRefused for anything but plain numbers that really are in a file of that many bytes."""
    plain = (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and tensor.device.type == "cpu"
        and tensor.dtype in DTYPES.values()
    )
    if not plain:
        kind = f"{type(tensor).__name__} of {tensor.dtype}, {tensor.layout} on {tensor.device}"
        raise ModelRefused(where, f"is no plain tensor ({kind}).", _SAVE)
    held = tensor.untyped_storage().nbytes()
    if tensor.nbytes > held or held > length:
        raise ModelRefused(where, f"claims the shape {list(tensor.shape)[:8]} in {length:,} bytes.", _SAVE)
    check_finite(where, tensor)


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
        _check_zip(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch, about its own old formats
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error):
            fix = _CONVERT.format(name=path.name)
            raise ModelRefused(path.name, "holds Python objects, not only weights.", fix) from error
        raise _damaged(path, error) from error
    except Exception as error:  # whatever a damaged file makes torch's reader stumble over
        raise _damaged(path, error) from error
    return _unwrapped(path, loaded)


def _check_zip(path: Path) -> None:
    """torch stores tensors uncompressed, so a zip that declares more than it holds is a bomb."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            declared = sum(info.file_size for info in file.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        raise ModelRefused(path.name, "is a TorchScript file.", _CONVERT_SCRIPT)
    length = path.stat().st_size
    if declared > length:
        raise ModelRefused(path.name, f"declares {declared:,} bytes of content in {length:,}.", _SAVE)


def _damaged(path: Path, error: Exception) -> ModelRefused:
    return ModelRefused(
        path.name,
        f"is damaged, cut off, or not a file that torch.save() wrote ({str(error)[:120]}).",
        _SAVE,
    )


def _unwrapped(path: Path, loaded: Any) -> dict[str, torch.Tensor]:
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelRefused(
            path.name,
            f"holds a {type(loaded).__name__}, not weights by name.",
            _SAVE,
        )
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelRefused(
                f"{path.name}: {str(name)[:80]}",
                f"is a {type(tensor).__name__}, not a tensor.",
                _SAVE,
            )
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name in weights:
            raise ModelRefused(f"{path.name}: {name[:80]}", "is there with and without a prefix.", _SAVE)
        weights[name] = tensor
    return weights
