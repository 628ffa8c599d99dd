"""The tensors of a `.pt2`: raw numbers in one record each, described by a JSON table.

Knows no operators and no graph. A record that could only be read by unpickling it is refused.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from workers.errors import ModelRefused
from workers.graph.operators import DTYPES

MAX_DIMENSIONS = 8
_LARGEST = 2**40  # of one size, stride or offset; keeps their product cheap
_RECORD = re.compile(r"(weight|tensor)_\d+", re.ASCII)
_RESAVE = "Save it again with torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')."


def read_tensors(
    table: Mapping[str, Any], place: str, read: Callable[[str], bytes]
) -> dict[str, tuple[torch.Tensor, bool]]:
    """Tensors by name, each with whether it is a parameter; tied weights are one tensor.

    table: name -> record, layout. place: the table's own path, for messages. read: a record's bytes.
    Raises ModelRefused, or what a malformed table brings about (KeyError, TypeError, ValueError …).
    """
    storages: dict[str, torch.Tensor] = {}
    views: dict[str, torch.Tensor] = {}
    tensors: dict[str, tuple[torch.Tensor, bool]] = {}
    for name, written in table.items():
        where = f"{place}: {name[:120]}"
        record, layout = written["path_name"], written["tensor_meta"]
        if written["use_pickle"] or layout is None or not _RECORD.fullmatch(record):
            raise ModelRefused(where, f"is stored as a pickle ({record[:80]}), which can run code.", _RESAVE)
        if layout["dtype"] not in DTYPES:
            raise ModelRefused(
                where,
                f"has the number format {layout['dtype']!r:.20}, which is neither real nor whole numbers.",
                "Convert it before the export, e.g. with model.float().",
            )
        dtype = DTYPES[layout["dtype"]]
        if record not in storages:
            raw = bytearray(read(record))
            storages[record] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        key = f"{record} {layout}"
        if key not in views:
            views[key] = _view(where, storages[record].view(dtype), layout)
            _check_amount(place, storages, views)
            check_finite(where, views[key])
        tensors[name] = (views[key], written["is_param"] is True)
    return tensors


def check_finite(where: str, tensor: torch.Tensor) -> None:
    """Raises ModelRefused when there is a NaN or an infinity in it; a mask of 0 and -infinity may pass."""
    if not tensor.is_floating_point() or torch.isfinite(tensor).all():
        return
    if not ((tensor == 0) | (tensor == -torch.inf)).all():
        raise ModelRefused(
            where,
            f"holds {int((~torch.isfinite(tensor)).sum()):,} NaN or infinite weights.",
            "Upload a model from before its training went wrong.",
        )


def _view(where: str, storage: torch.Tensor, layout: Mapping[str, Any]) -> torch.Tensor:
    """A contiguous copy of the written part of a storage; refuses to reach outside of it."""
    sizes = [_number(size["as_int"]) for size in layout["sizes"][: MAX_DIMENSIONS + 1]]
    strides = [_number(stride["as_int"]) for stride in layout["strides"][: MAX_DIMENSIONS + 1]]
    offset = _number(layout["storage_offset"]["as_int"])
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (
        len(sizes) > MAX_DIMENSIONS
        or math.prod(sizes) > len(storage)
        or (0 not in sizes and last >= len(storage))
    ):
        raise ModelRefused(
            where, f"has the shape {sizes}, but the file holds {len(storage):,} numbers.", _RESAVE
        )
    return torch.as_strided(storage, sizes, strides, offset).clone(memory_format=torch.contiguous_format)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError(f"a size of {value!r:.40}")
    return value


def _check_amount(
    place: str, storages: Mapping[str, torch.Tensor], views: Mapping[str, torch.Tensor]
) -> None:
    """Many names may share a record, but thousands of copies of a large one would fill the memory."""
    if len(views) <= 2 * len(storages):
        return
    held = sum(storage.nbytes for storage in storages.values())
    copied = sum(view.nbytes for view in views.values())
    if copied > 4 * held:
        raise ModelRefused(place, f"makes {copied:,} bytes of weights out of {held:,}.", _RESAVE)
