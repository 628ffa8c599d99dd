"""How many multiply-accumulate operations one sample costs. Never shown as speed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, NodeProto
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from workers.base import Artefact, Bench, Measure, Measurement, ModelSpec

#: Operators whose cost follows from shapes, with the places of their data and their weights.
PRODUCTS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}
#: Operators that multiply in ways not counted here, or run other graphs.
UNCOUNTED = frozenset("Attention DeformConv Einsum GRU If LSTM Loop RNN Scan".split())


class Macs(Measure):
    """Multiply-accumulates of convolutions and matrix products, one sample.

    Counted in the graph, or else in the file; None where the file does not tell its shapes.
    """

    title = "MACs"
    unit = "MAC"
    better = "lower"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:  # noqa: ARG002
        return [
            [Measurement(name="macs", value=_macs(artefact), unit=self.unit, better=self.better)]
            for artefact in artefacts
        ]


def _macs(artefact: Artefact) -> int | None:
    candidate = artefact.candidate
    if candidate.graph is None:
        counts = [count_file_macs(file) for file in candidate.segments or (artefact.file,)]
        return None if None in counts else sum(filter(None, counts))
    return count_macs(candidate.graph, candidate.spec)


def count_macs(graph: GraphModule, spec: ModelSpec) -> int:
    """Run one sample through the graph and count; the graph is left as it was.

    Additions of a bias, normalization and activations are not counted, as is the custom.
    """
    parameter = next(graph.parameters(), torch.empty(0))
    samples = [
        torch.zeros([size if isinstance(size, int) else 1 for size in tensor.shape], device=parameter.device)
        for tensor in spec.inputs
    ]
    with _countable(graph), FlopCounterMode(display=False) as counter:
        graph(*samples)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _countable(graph: GraphModule) -> Iterator[None]:
    """Evaluation mode, and attention as plain matrix products: its fused kernels are counted as nothing."""
    training = [module for module in graph.modules() if module.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    graph.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module in training:
            module.training = True


def count_file_macs(file: Path) -> int | None:
    """The same for an ONNX file, float or quantized; None for operators and shapes that are not known."""
    model = onnx.load(file)
    nodes = model.graph.node
    if any(node.op_type in UNCOUNTED or node.domain not in ("", "ai.onnx") for node in nodes):
        return None
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        shapes = _shapes(SymbolicShapeInference.infer_shapes(model, auto_merge=True))
        return sum(_node_macs(node, shapes) for node in nodes if node.op_type in PRODUCTS)
    except Exception:  # noqa: BLE001 - shapes that depend on the data end it with errors of every kind
        return None


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """Of every tensor that has one without symbols."""
    graph = model.graph
    known = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in shape):
            known[value.name] = [size.dim_value for size in shape]
    return known


def _node_macs(node: NodeProto, shapes: Mapping[str, list[int]]) -> int:
    """Raises KeyError where a shape is not known."""
    data, weight = (shapes[node.input[place]] for place in PRODUCTS[node.op_type])
    if node.op_type == "ConvTranspose":
        return prod(data) * prod(weight[1:])
    made = prod(shapes[node.output[0]])
    if "Conv" in node.op_type:
        return made * prod(weight[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return made * data[0 if transposed else -1]
