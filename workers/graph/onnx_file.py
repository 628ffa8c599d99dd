"""An uploaded `.onnx`: checked, given Paredown's names for its input and output, otherwise left as it is.

ONNX files name no code, but they can name other files, claim absurd shapes and loop without end.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from workers.base import INPUT_NAME, OUTPUT_NAME
from workers.errors import ModelRefused
from workers.graph.onnx_content import check_nodes, check_weights
from workers.graph.onnx_functions import inlined

MAX_SIDE = 4096
_FIX = "Export it again with torch.onnx.export(model.eval(), (x,), 'model.onnx', external_data=False)."


def read_onnx(path: Path) -> tuple[ModelProto, int, tuple[int, int, int]]:
    """The checked model, its number of classes and its input's (C, H, W). Raises ModelRefused."""
    try:
        model = ModelProto.FromString(path.read_bytes())
    except (DecodeError, OSError, ValueError, RecursionError, MemoryError) as error:
        raise ModelRefused(path.name, f"is not a whole ONNX file ({error}).", _FIX) from error
    if not model.graph.node:
        raise ModelRefused(path.name, "is not an ONNX file, or holds no operators.", _FIX)
    if model.training_info:
        raise ModelRefused(path.name, "holds a training program besides the model.", _FIX)
    check_weights(path, model)
    model = inlined(path, model)
    check_nodes(path, model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelRefused(path.name, f"breaks the ONNX rules ({str(error)[:160]}).", _FIX) from error
    classes, shape = _interface(path, model)
    return model, classes, shape


def subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, below it, the branches inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from subgraphs(inner)


def _interface(path: Path, model: ModelProto) -> tuple[int, tuple[int, int, int]]:
    """Classes and (C, H, W); renames input and output to Paredown's contract and makes the batch dynamic."""
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
        number = inputs[0].type.tensor_type.elem_type
        kind = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True)).get(number)
        raise ModelRefused(path.name, f"takes {kind} {taken[:8]}, not FLOAT (N, C, H, W).", _FIX)
    _, channels, height, width = taken
    if channels not in (1, 3) or not (height and width) or max(height, width) > MAX_SIDE:
        raise ModelRefused(
            path.name,
            f"takes (N, C, H, W) = {taken} (None: dynamic).",
            f"C must be 1 or 3, H and W fixed and at most {MAX_SIDE}.",
        )
    if len(given) != 2 or not given[1] or given[1] < 2:
        raise ModelRefused(
            path.name,
            f"returns {given[:8]} (None: dynamic), not logits (N, classes) for two classes or more.",
            _FIX,
        )
    for value, name in ((inputs[0], INPUT_NAME), (model.graph.output[0], OUTPUT_NAME)):
        # Whether the graph really follows a dynamic batch is tried by running it.
        value.type.tensor_type.shape.dim[0].dim_param = "N"
        _rename(model.graph, value.name, name)
    del model.graph.value_info[:]
    return given[1], (channels, height, width)


def _shape(value: ValueInfoProto) -> list[int | None]:
    """Positive sizes; None where a size is a symbol, missing or nonsense."""
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in value.type.tensor_type.shape.dim
    ]


def _rename(graph: GraphProto, old: str, new: str) -> None:
    """Everywhere in the graph and in the branches that see it; who had the new name gets the old one."""
    names = {old: new, new: old}
    for part in subgraphs(graph):
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*part.input, *part.output, *part.value_info):
            value.name = names.get(value.name, value.name)
        for tensor in part.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for annotation in part.quantization_annotation:
            annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
