"""The file of a narrower network, made from the file of the wide one: exporting anew takes minutes."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn
from torch.fx import GraphModule

from workers.prediction.profile import layer_nodes


def resized(model: ModelProto, wide: GraphModule, narrow: GraphModule, layers: Sequence[str]) -> ModelProto:
    """A copy of `model`, the export of `wide`, with the shapes of `narrow`; its numbers mean nothing.

    Every weight is cut to its new shape; biases into which normalization was folded follow their weight.
    Whether it is right shows when it is run: sizes that do not fit are an error of the runtime.
    """
    made = ModelProto()
    made.CopyFrom(model)
    shapes = _shapes(model, wide, narrow, layers)
    for node, layer in layer_nodes(made, layers):
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = int(getattr(narrow.get_submodule(layer), "groups", 1))
    _flatten_any(made)
    for tensor in made.graph.initializer:
        shape = shapes.get(tensor.name)
        if shape is not None and shape != tuple(tensor.dims):
            values = numpy_helper.to_array(tensor)[tuple(map(slice, shape))]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    return made


def _shapes(
    model: ModelProto, wide: GraphModule, narrow: GraphModule, layers: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """What the initializers become whose size is known."""
    found = {name: tuple(tensor.shape) for name, tensor in _tensors(narrow).items()}
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node, layer in layer_nodes(model, layers):
        before, after = (_weight(graph, layer) for graph in (wide, narrow))
        transposed = len(before) == 2 and sizes[node.input[1]] == before[::-1] != before
        found[node.input[1]] = after[::-1] if transposed else after
        if len(node.input) > 2:
            found[node.input[2]] = after[:1]
    return found


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


def _weight(graph: GraphModule, layer: str) -> tuple[int, ...]:
    module = graph.get_submodule(layer)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return tuple(module.weight.shape)
