"""The `.pt2` file: read without running anything of it, written without a trace of who wrote it.

`torch.export.load` unpickles parts of the archive and evaluates expressions in it, so it is never called
here. What is read is JSON, raw tensors, and nothing else; what is written is the same, so
`torch.export.load` opens it elsewhere. Format: torch.export.pt2_archive, schema version 8.
"""

import io
import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from workers.base import Preprocessing
from workers.errors import ModelRefused
from workers.graph.expressions import check_expressions
from workers.graph.operators import DTYPES

SCHEMA_MAJOR = 8
MAX_JSON_BYTES = 64 << 20
MAX_MEMBERS = 100_000

_RESAVE = (
    "Save it again with torch 2.8 or newer: torch.export.save(torch.export.export(model, (x,)), 'm.pt2')."
)
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
# Never opened: torch writes a pickle here; we write nothing.
_IGNORED = ("data/sample_inputs/", ".data/", "archive_format", "archive_version", "data/extra/")


@dataclass(frozen=True)
class Archive:
    """What a `.pt2` says: the program as parsed JSON and every tensor it needs, by name."""

    program: Mapping[str, Any]
    parameters: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]


def read_archive(path: Path) -> Archive:
    """Read a `.pt2`; nothing in it is unpickled, evaluated or run. Raises ModelRefused."""
    try:
        with zipfile.ZipFile(path) as file:
            members = _members(path, file)
            program = _json(file, members, "models/model.json")
            if program["schema_version"]["major"] != SCHEMA_MAJOR:
                raise ModelRefused(
                    path.name, f"was written in format {program['schema_version']['major']}, not 8.", _RESAVE
                )
            check_expressions(program)
            weights = _tensors(file, members, "weights")
            constants = _tensors(file, members, "constants")
    except ModelRefused:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise ModelRefused(
            path.name, f"is damaged or cut off ({error}).", "Export and upload it again."
        ) from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        raise ModelRefused(path.name, f"is not a well-formed .pt2 ({error!r:.200}).", _RESAVE) from error
    parameters = {name: tensor for name, (tensor, is_parameter) in weights.items() if is_parameter}
    buffers = {name: tensor for name, (tensor, is_parameter) in weights.items() if not is_parameter}
    buffers.update({name: tensor for name, (tensor, _) in constants.items()})
    return Archive(program, parameters, buffers)


def trace(graph: torch.nn.Module, preprocessing: Preprocessing) -> ExportedProgram:
    """Export a module with a dynamic batch; the program carries no stack trace, class name or sample."""
    sample = torch.zeros(2, *preprocessing.shape)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        program = torch.export.export(
            graph.eval(), (sample,), dynamic_shapes=({0: torch.export.Dim("N", min=1)},)
        )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            module.meta.clear()
            for node in module.graph.nodes:
                node.meta = {key: value for key, value in node.meta.items() if key in ("val", "tensor_meta")}
    program._example_inputs = None  # saved as an empty record instead of a pickle
    return program


def write_archive(program: ExportedProgram, path: Path) -> None:
    """Write a canonical `.pt2`: no pickle, no stack trace. `path` appears whole or not at all."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".pt2")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def checked_name(name: str) -> str:
    """A name as it may appear in generated code. Raises ModelRefused."""
    if not _NAME.fullmatch(name) or len(name) > 500:
        raise ModelRefused(
            "models/model.json",
            f"has a parameter named {name[:120]!r}.",
            "Use letters, digits, '_', '-' and '.'.",
        )
    return name


def _members(path: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by name below the archive's one top folder; refuses what an honest archive never holds."""
    infos = file.infolist()
    if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > path.stat().st_size:
        raise ModelRefused(path.name, "declares more content than the file holds.", _RESAVE)
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.partition("/")[2]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelRefused(path.name, f"holds the compressed member {info.filename[:120]!r}.", _RESAVE)
        if name in members:
            raise ModelRefused(path.name, f"holds {info.filename[:120]!r} twice.", _RESAVE)
        members[name] = info
        known = name.startswith(("models/", "data/weights/", "data/constants/", "byteorder", *_IGNORED))
        if not known:
            raise ModelRefused(
                path.name,
                f"holds {info.filename[:120]!r}, which does not belong in an exported program.",
                _RESAVE,
            )
    models = [name for name in members if name.startswith("models/")]
    if models != ["models/model.json"]:
        raise ModelRefused(path.name, f"holds {len(models)} programs ({models[:3]}), not one.", _RESAVE)
    if "byteorder" in members and file.read(members["byteorder"]) != b"little":
        raise ModelRefused(path.name, "was written on a big-endian machine.", _RESAVE)
    return members


def _json(file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> Any:
    if members[name].file_size > MAX_JSON_BYTES:
        raise ModelRefused(name, f"is {members[name].file_size:,} bytes long.", _RESAVE)
    return json.loads(file.read(members[name]))


def _tensors(
    file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], kind: str
) -> dict[str, tuple[torch.Tensor, bool]]:
    """Tensors by name, each with whether it is a parameter."""
    config = f"data/{kind}/model_{kind}_config.json"
    if f"data/{kind}/model.pt" in members or config not in members:
        raise ModelRefused(f"data/{kind}", "keeps its tensors as a pickle, which can run code.", _RESAVE)
    storages: dict[str, torch.Tensor] = {}
    views: dict[str, torch.Tensor] = {}  # tied weights stay one tensor
    tensors = {}
    for name, meta in _json(file, members, config)["config"].items():
        record, layout = meta["path_name"], meta["tensor_meta"]
        if meta["use_pickle"] or layout is None or not re.fullmatch(r"(weight|tensor)_\d+", record):
            raise ModelRefused(
                f"{config}: {name[:120]}", "is stored as a pickle, which can run code.", _RESAVE
            )
        dtype = DTYPES[layout["dtype"]]
        if record not in storages:
            raw = bytearray(file.read(members[f"data/{kind}/{record}"]))
            storages[record] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        key = f"{record} {layout}"
        if key not in views:
            views[key] = _view(checked_name(name), storages[record].view(dtype), layout)
        tensor = views[key]
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelRefused(
                name, "holds NaN or infinite weights.", "Upload a model from before training went wrong."
            )
        tensors[name] = (tensor, bool(meta["is_param"]))
    return tensors


def _view(name: str, storage: torch.Tensor, layout: Mapping[str, Any]) -> torch.Tensor:
    """A contiguous copy of the written part of a storage; refuses to reach outside of it."""
    sizes = [int(size["as_int"]) for size in layout["sizes"]]
    strides = [int(stride["as_int"]) for stride in layout["strides"]]
    offset = int(layout["storage_offset"]["as_int"])
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    empty = 0 in sizes
    if (
        min([*sizes, *strides, offset, 0]) < 0
        or math.prod(sizes) > len(storage)
        or (not empty and last >= len(storage))
    ):
        raise ModelRefused(
            name, f"has the shape {sizes[:8]}, but the file holds {len(storage)} numbers.", _RESAVE
        )
    return torch.as_strided(storage, sizes, strides, offset).clone(memory_format=torch.contiguous_format)
