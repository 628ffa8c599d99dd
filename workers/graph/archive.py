"""The `.pt2` file: read without running anything of it, written without a trace of who wrote it.

`torch.export.load` unpickles parts of the archive and evaluates expressions in it, so it is never called
here. What is read is JSON, raw tensors, and nothing else; what is written is the same, so
`torch.export.load` opens it elsewhere. Format: torch.export.pt2_archive, schema version 8.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from workers.base import Preprocessing
from workers.errors import ModelRefused
from workers.graph.expressions import check_expressions
from workers.graph.records import read_tensors
from workers.writing import written_whole

SCHEMA_MAJOR = 8
MAX_JSON_BYTES = 32 << 20
MAX_MEMBERS = 100_000
MODEL = "models/model.json"

_RESAVE = (
    "Save it again with torch 2.9 or newer: "
    "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')."
)
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
#: What may lie in an archive. The samples are a pickle: torch writes one, we never open it and write none.
_MEMBER = re.compile(
    r"models/model\.json|data/(weights|constants)/(model_\1_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt|extra/.+|byteorder|archive_format|archive_version|\.data/\w+",
    re.ASCII,
)
_PICKLED = ("data/weights/model.pt", "data/constants/model.pt")


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
            program = _json(file, members, MODEL)
            major = program["schema_version"]["major"]
            if major != SCHEMA_MAJOR:
                raise ModelRefused(
                    path.name, f"was written in format {major!r:.20}, not {SCHEMA_MAJOR}.", _RESAVE
                )
            check_expressions(program)
            weights = _tensors(file, members, "weights")
            constants = _tensors(file, members, "constants")
    except ModelRefused:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, OverflowError) as error:
        raise ModelRefused(
            path.name, f"is damaged or cut off ({error}).", "Export and upload it again."
        ) from error
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise ModelRefused(path.name, f"is not a well-formed .pt2 ({error!r:.200}).", _RESAVE) from error
    parameters = {name: tensor for name, (tensor, is_parameter) in weights.items() if is_parameter}
    buffers = {name: tensor for name, (tensor, is_parameter) in weights.items() if not is_parameter}
    buffers.update({name: tensor for name, (tensor, _) in constants.items()})
    return Archive(program, parameters, buffers)


def trace(graph: torch.nn.Module, preprocessing: Preprocessing) -> ExportedProgram:
    """Export a model with a dynamic batch; the program carries no stack trace, class name or sample."""
    return trace_shape(graph, preprocessing.shape)


def trace_shape(module: torch.nn.Module, shape: Sequence[int], batch: int | None = None) -> ExportedProgram:
    """As `trace`, for any module with one input; shape: of that input, without the batch.

    batch: None takes any.
    """
    sample = torch.zeros(batch or 2, *shape)
    dynamic = ({0: torch.export.Dim("N", min=1)},) if batch is None else None
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        program = torch.export.export(module.eval(), (sample,), dynamic_shapes=dynamic)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    _forget_origin(program)
    return program


def _forget_origin(program: ExportedProgram) -> None:
    """Remove stack traces, module and class names; leave what a loader needs."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            module.meta.clear()
            for node in module.graph.nodes:
                node.meta = {key: value for key, value in node.meta.items() if key in ("val", "tensor_meta")}
    program._example_inputs = None  # saved as an empty record instead of a pickle


def write_archive(program: ExportedProgram, path: Path) -> None:
    """Write a canonical `.pt2`: no pickle, no stack trace. `path` appears whole or not at all."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with written_whole(path) as partial:
        partial.write_bytes(buffer.getbuffer())


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
    declared = sum(info.file_size for info in infos)
    if len(infos) > MAX_MEMBERS or declared > path.stat().st_size:
        raise ModelRefused(
            path.name,
            f"declares {len(infos):,} members of {declared:,} bytes, more than the file can hold.",
            _RESAVE,
        )
    members: dict[str, zipfile.ZipInfo] = {}
    top = infos[0].filename.partition("/")[0] if infos else ""
    for info in infos:
        folder, _, name = info.filename.partition("/")
        shown = repr(info.filename[:120])
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelRefused(path.name, f"holds the compressed member {shown}.", _RESAVE)
        if name in members:
            raise ModelRefused(path.name, f"holds {shown} twice.", _RESAVE)
        if name in _PICKLED:
            raise ModelRefused(
                path.name, f"keeps tensors as a pickle ({shown}), which can run code.", _RESAVE
            )
        if folder != top or ".." in name or not _MEMBER.fullmatch(name):
            raise ModelRefused(
                path.name, f"holds {shown}, which does not belong in an exported program.", _RESAVE
            )
        members[name] = info
    if MODEL not in members:
        raise ModelRefused(path.name, f"holds no program named {MODEL!r}.", _RESAVE)
    if "byteorder" in members and file.read(members["byteorder"]) != b"little":
        raise ModelRefused(path.name, "was written on a big-endian machine.", _RESAVE)
    return members


def _json(file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> Any:
    if members[name].file_size > MAX_JSON_BYTES:
        raise ModelRefused(
            name,
            f"is {members[name].file_size:,} bytes long; {MAX_JSON_BYTES:,} are allowed.",
            "Export a smaller model.",
        )
    return json.loads(file.read(members[name]))


def _tensors(
    file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], kind: str
) -> dict[str, tuple[torch.Tensor, bool]]:
    """Tensors by name, each with whether it is a parameter. kind: weights, constants."""
    table = f"data/{kind}/model_{kind}_config.json"
    if table not in members:
        raise ModelRefused("the file", f"has no table of its {kind} ({table}).", _RESAVE)
    tensors = read_tensors(
        _json(file, members, table)["config"],
        table,
        lambda record: file.read(members[f"data/{kind}/{record}"]),
    )
    for name in tensors:
        checked_name(name)
    return tensors
