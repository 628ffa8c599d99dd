"""The aten operators a program may use, and how their written arguments are read.

A program from a file is data: an operator that is not listed here is refused, so reading one can neither
touch files (`aten.from_file`), alias memory (`aten.set_`), read memory that nobody wrote (`aten.empty`) nor
run a subgraph without end. All listed operators compute tensors from tensors, and their output sizes are
known before they run.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from workers.errors import ModelRefused

ATEN = frozenset(
    """
    abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add add_ addmm alias amax amin arange
    avg_pool1d avg_pool2d baddbmm batch_norm bmm cat chunk clamp clamp_ clamp_max clamp_min clone
    constant_pad_nd contiguous conv1d conv2d conv_transpose2d cos cumsum detach detach_ div div_ dropout
    dropout_ einsum elu elu_ embedding eq erf exp expand expand_as feature_dropout fill fill_
    flatten flip full full_like ge gelu gather glu group_norm gt hardsigmoid hardsigmoid_ hardswish
    hardswish_ hardtanh hardtanh_ index index_select instance_norm layer_norm le leaky_relu leaky_relu_
    lift_fresh_copy linalg_vector_norm linear log log_softmax logical_and logical_not logical_or
    logsumexp lt masked_fill masked_fill_ matmul max max_pool1d max_pool2d maximum mean min minimum mish
    mish_ mm movedim mul mul_ narrow ne neg new_full new_ones new_zeros norm ones ones_like pad permute
    pixel_shuffle pixel_unshuffle pow prelu reciprocal relu relu6 relu_ repeat reshape rms_norm roll
    rsqrt scaled_dot_product_attention select sigmoid sigmoid_ silu silu_ sin slice softmax softplus
    split split_with_sizes sqrt square squeeze stack std sub sub_ sum swapaxes sym_size t tan tanh tanh_
    to transpose tril triu type_as unbind unflatten unfold unsqueeze upsample_bilinear2d
    upsample_nearest2d var view where zero_ zeros zeros_like _assert_tensor_metadata _to_copy
    """.split()
)

#: The two that do not return tensors.
_NO_TENSOR = frozenset({("sym_size", "int"), ("_assert_tensor_metadata", "default")})

#: Arithmetic on sizes that depend on the batch.
SYMBOLIC = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "eq", "ne", "ge", "gt", "le", "lt")
}

# torch._export.serde.schema.ScalarType -> dtype; half floats and integers, no complex, no 8-bit floats.
DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS: dict[int, torch.memory_format] = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    4: torch.preserve_format,
}

_PLAIN: dict[str, type | tuple[type, ...]] = {
    "as_int": int,
    "as_float": (int, float),
    "as_bool": bool,
    "as_string": str,
}
_PLAIN_LISTS: dict[str, type | tuple[type, ...]] = {
    "as_ints": int,
    "as_floats": (int, float),
    "as_bools": bool,
}


@functools.cache
def resolve(target: str) -> Callable[..., Any]:
    """The operator that a program names, e.g. ``torch.ops.aten.conv2d.default``.

    Raises ModelRefused when it is not on the list.
    """
    if target in SYMBOLIC:
        return SYMBOLIC[target]  # type: ignore[no-any-return]
    parts = target.split(".")
    if len(parts) == 5 and parts[:3] == ["torch", "ops", "aten"] and parts[3] in ATEN:
        packet = getattr(torch.ops.aten, parts[3])
        if parts[4] in packet.overloads():
            overload = getattr(packet, parts[4])
            if (parts[3], parts[4]) in _NO_TENSOR or _makes_tensors(overload):
                return overload  # type: ignore[no-any-return]
    raise ModelRefused(
        "models/model.json",
        f"uses the operator {target[:200]!r}, which is not one that Paredown knows to be safe.",
        "Save the result of torch.export.export() itself (not of run_decompositions()); if the model needs "
        "this operator, ask for it to be added to workers/graph/operators.py.",
    )


def _makes_tensors(overload: OpOverload) -> bool:
    """False for what TorchScript does with lists, strings and numbers (`aten.mul.left_t` copies a list any
    number of times) and for variants that write into another tensor (`aten.mul.out`).
    """
    returned = {str(value.type) for value in overload._schema.returns}
    writes_elsewhere = any(argument.is_out for argument in overload._schema.arguments)
    return bool(returned) and returned <= {"Tensor", "List[Tensor]"} and not writes_elsewhere


def read_argument(written: Mapping[str, Any], values: Mapping[str, Node]) -> Any:
    """One argument of a node, as `torch.fx` wants it. Raises ValueError or KeyError when it is malformed."""
    (kind, value), *rest = written.items()
    if rest:
        raise ValueError(f"an argument of {len(rest) + 1} kinds")
    if kind == "as_none":
        return None
    if kind in _PLAIN:
        return _checked(value, _PLAIN[kind])
    if kind in _PLAIN_LISTS:
        return [_checked(item, _PLAIN_LISTS[kind]) for item in value]
    if kind == "as_tensor":
        return values[value["name"]]
    if kind == "as_tensors":
        return [values[item["name"]] for item in value]
    if kind in ("as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _optional(value, values)
    if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_optional(item, values) for item in value]
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return MEMORY_FORMATS[value]
    if kind == "as_layout":
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    raise ValueError(f"an argument of the kind {kind[:80]!r}")


def _checked(value: Any, kind: type | tuple[type, ...]) -> Any:
    # JSON's true is a Python int; only a bool may be one.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        # Non-finite floats are written as strings.
        if kind == (int, float) and value in ("Infinity", "-Infinity"):
            return float(value.lower())
        raise ValueError(f"{str(value)[:80]!r} where {kind} belongs")
    return value


def _optional(written: Mapping[str, Any], values: Mapping[str, Node]) -> Any:
    """A named value, a plain number or nothing."""
    ((kind, value),) = written.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return values[value["name"]]
    if kind == "as_name":
        return values[value]
    return _checked(value, _PLAIN[kind])
