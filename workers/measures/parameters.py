"""How many weights a model has."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import onnx
from onnx import GraphProto, TensorProto

from workers.base import Artefact, Bench, Measure, Measurement

#: Every type a weight is stored in; int32 and int64 hold shapes and axes, except where dequantized.
WEIGHT_TYPES = frozenset(
    number
    for name, number in TensorProto.DataType.items()
    if name.startswith(("FLOAT", "BFLOAT", "DOUBLE", "INT4", "UINT4", "INT8", "UINT8"))
)


class Parameters(Measure):
    """Trainable parameters of the graph, or else the weights stored in the file."""

    title = "Parameters"
    unit = "weights"
    better = "lower"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:  # noqa: ARG002
        return [
            [Measurement(name="parameters", value=_count(artefact), unit=self.unit, better=self.better)]
            for artefact in artefacts
        ]


def _count(artefact: Artefact) -> int:
    if artefact.candidate.graph is not None:
        return sum(parameter.numel() for parameter in artefact.candidate.graph.parameters())
    return count_weights(artefact.file)


def count_weights(file: Path) -> int:
    """Weights in an ONNX file, float or quantized; without scales and zero points; branches counted in.

    Statistics of a BatchNorm that the export did not fold are counted too: the file does not tell them
    from weights.
    """
    return _count_in(onnx.load(file, load_external_data=False).graph)


def _count_in(graph: GraphProto) -> int:
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    ranges = {name for node in quantizers for name in node.input[1:]}
    quantized = {node.input[0] for node in quantizers if node.op_type == "DequantizeLinear"}
    own = sum(
        prod(tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in ranges and (tensor.data_type in WEIGHT_TYPES or tensor.name in quantized)
    )
    return own + sum(map(_count_in, branches))
