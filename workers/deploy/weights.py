"""What the weights of an exported file are stored as."""

from collections import Counter
from math import prod
from pathlib import Path

import onnx
from onnx import GraphProto, TensorProto

#: Every type a weight is stored in; int32 and int64 hold shapes and axes, except where dequantized.
WEIGHT_TYPES = frozenset(
    number
    for name, number in TensorProto.DataType.items()
    if name.startswith(("FLOAT", "BFLOAT", "DOUBLE", "INT4", "UINT4", "INT8", "UINT8"))
)
#: ONNX's names for what everyone calls otherwise.
WORDS = {"float": "float32", "double": "float64"}


def weight_types(file: Path) -> Counter[str]:
    """How many weights of each type an ONNX file holds, float or quantized, e.g. {"float32": 310,000}.

    Without scales and zero points; branches counted in. Statistics of a BatchNorm that the export did not
    fold are counted too: the file does not tell them from weights.
    """
    return _count_in(onnx.load(file, load_external_data=False).graph)


def _count_in(graph: GraphProto) -> Counter[str]:
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    ranges = {name for node in quantizers for name in node.input[1:]}
    quantized = {node.input[0] for node in quantizers if node.op_type == "DequantizeLinear"}
    found: Counter[str] = Counter()
    for tensor in graph.initializer:
        if tensor.name not in ranges and (tensor.data_type in WEIGHT_TYPES or tensor.name in quantized):
            name = TensorProto.DataType.Name(tensor.data_type).lower()
            found[WORDS.get(name, name)] += prod(tensor.dims)
    return sum(map(_count_in, branches), found)
