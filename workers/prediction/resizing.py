"""The file of a narrower network, made from the file of the wide one: exporting anew takes minutes."""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper
from torch import Tensor
from torch.fx import GraphModule

from workers.graph.layer_roles import layer_weights
from workers.profiling.matching import Layers


def resized(file: Path, wide: GraphModule, narrow: GraphModule) -> ModelProto:
    """As the file holds it, the export of `wide`, with the shapes of `narrow`; its numbers mean nothing.

    Every weight is cut to its new shape; biases into which normalization was folded follow their weight.
    Whether it is right shows when it is run: sizes that do not fit are an error of the runtime.
    """
    made = onnx.load(file)
    shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(narrow).items()}
    groups: dict[str, int] = {}
    for node, weight, layer in Layers(file, ()).products():
        before, after = (_weight(graph, layer) for graph in (wide, narrow))
        if before is None or after is None:
            continue
        transposed = len(before) == 2 and tuple(weight.dims) == before[::-1] != before
        shapes[weight.name] = after[::-1] if transposed else after
        if len(node.input) > 2:
            shapes[node.input[2]] = after[:1]
        groups[node.output[0]] = int(getattr(narrow.get_submodule(layer), "groups", 1))
    _regroup(made, groups)
    _flatten_any(made)
    for tensor in made.graph.initializer:
        shape = shapes.get(tensor.name)
        if shape is not None and shape != tuple(tensor.dims):
            values = numpy_helper.to_array(tensor)[tuple(map(slice, shape))]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    return made


def _regroup(model: ModelProto, groups: dict[str, int]) -> None:
    """groups: of convolutions, by what they make."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group" and node.output[0] in groups:
                attribute.i = groups[node.output[0]]


def _flatten_any(model: ModelProto) -> None:
    """Where a sample becomes a row of so many numbers, it becomes a row of as many as there are."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        shape = stored.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and list(shape.dims) == [2]:
            rows = numpy_helper.from_array(
                np.array([0, -1], np.int64), f"{node.name}_rows"
            )  # 0: as they come
            model.graph.initializer.append(rows)
            node.input[1] = rows.name
            del node.attribute[:]


def _tensors(graph: GraphModule) -> dict[str, Tensor]:
    return dict(graph.named_parameters()) | dict(graph.named_buffers())


def _weight(graph: GraphModule, layer: str) -> tuple[int, ...] | None:
    """None where the name is no layer's."""
    weight = layer_weights(graph).get(f"{layer}.weight")
    return None if weight is None else tuple(weight.shape)
