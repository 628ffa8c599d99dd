"""An uploaded `.onnx`: checked, given Paredown's names for its input and output, otherwise left as it is.

ONNX files name no code, but they can name other files, claim absurd shapes and loop without end.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto

from workers.base import INPUT_NAME, OUTPUT_NAME
from workers.errors import ModelRefused

#: Operator sets that plain ONNX Runtime brings along.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_ENDLESS = {"Loop", "Scan"}
MAX_ELEMENTS = 2**31
_FIX = "Export it again with torch.onnx.export(model.eval(), (x,), 'model.onnx', external_data=False)."


def read_onnx(path: Path) -> tuple[ModelProto, int, tuple[int, int, int]]:
    """The checked model, its number of classes and its input's (C, H, W). Raises ModelRefused."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError, RecursionError) as error:
        raise ModelRefused(path.name, f"is not a whole ONNX file ({error}).", _FIX) from error
    for graph in subgraphs(model.graph):
        _check_tensors(path, graph)
        _check_nodes(path, graph)
    for function in model.functions:
        _check_domain(path, function.domain, function.name)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelRefused(path.name, f"breaks the ONNX rules ({str(error)[:160]}).", _FIX) from error
    classes, shape = _interface(path, model)
    _dynamic(model)
    return model, classes, shape


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, below it, the branches inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from subgraphs(inner)


def _check_nodes(path: Path, graph: GraphProto) -> None:
    for node in graph.node:
        _check_domain(path, node.domain, node.op_type)
        if node.op_type in _ENDLESS:
            raise ModelRefused(path.name, f"contains a {node.op_type}, which can run without end.", _FIX)


def _check_domain(path: Path, domain: str, operator: str) -> None:
    if domain not in _DOMAINS and not domain.startswith("pkg."):
        raise ModelRefused(
            path.name,
            f"uses {operator} of the operator set {domain[:80]!r}, which needs code of its own.",
            _FIX,
        )


def _check_tensors(path: Path, graph: GraphProto) -> None:
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            raise ModelRefused(path.name, f"keeps weights in another file ({location[:80]!r}).", _FIX)
        elements = math.prod(tensor.dims)
        if min(tensor.dims, default=0) < 0 or elements > MAX_ELEMENTS:
            raise ModelRefused(path.name, f"claims a tensor of the shape {list(tensor.dims)[:8]}.", _FIX)
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            try:
                values = onnx.numpy_helper.to_array(tensor)
            except (ValueError, TypeError) as error:
                raise ModelRefused(
                    path.name, f"tensor {tensor.name[:80]!r} holds less than it claims ({error}).", _FIX
                ) from error
            # The sum is finite exactly when no element is NaN (and no infinities cancel or overflow).
            if bool((values != values).any()):
                raise ModelRefused(
                    f"{path.name}: {tensor.name[:80]}", "holds NaN weights.", "Upload a sound model."
                )


def _tensors(graph: GraphProto) -> Iterable[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _interface(path: Path, model: ModelProto) -> tuple[int, tuple[int, int, int]]:
    """Classes and (C, H, W); renames input and output to Paredown's contract."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ModelRefused(
            path.name,
            f"has {len(inputs)} inputs and {len(model.graph.output)} outputs, not one of each.",
            _FIX,
        )
    taken, given = _shape(inputs[0]), _shape(model.graph.output[0])
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT or len(taken) != 4:
        raise ModelRefused(path.name, f"takes {taken}, not float32 (N, C, H, W).", _FIX)
    channels, height, width = taken[1:]
    if channels not in (1, 3) or not (height and width) or max(height, width) > 4096:
        raise ModelRefused(path.name, f"takes (N, C, H, W) = {taken}; C must be 1 or 3, H and W fixed.", _FIX)
    if len(given) != 2 or not given[1] or given[1] < 2:
        raise ModelRefused(
            path.name, f"returns {given}, not logits (N, classes) for two classes or more.", _FIX
        )
    _rename(model.graph, inputs[0].name, INPUT_NAME)
    _rename(model.graph, model.graph.output[0].name, OUTPUT_NAME)
    return given[1], (channels, height, width)


def _shape(value: ValueInfoProto) -> list[int | None]:
    return [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]


def _rename(graph: GraphProto, old: str, new: str) -> None:
    """Everywhere in the graph and in the branches that see it."""
    for part in subgraphs(graph):
        for node in part.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in (*part.input, *part.output, *part.value_info):
            if value.name == old:
                value.name = new


def _dynamic(model: ModelProto) -> None:
    """A fixed batch becomes N; whether the graph really follows is tried by running it."""
    for value in (model.graph.input[0], *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
