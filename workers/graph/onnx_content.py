"""What may stand inside an ONNX file: operators that end and need no code, weights that are in the file."""

import math
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from workers.errors import ModelRefused
from workers.graph.onnx_functions import all_nodes

#: Operator sets that plain ONNX Runtime brings along.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
#: ONNX Runtime's own operators that its quantizer and optimizer write; others loop or read other files.
_MICROSOFT = frozenset(
    """Attention BiasAdd BiasGelu DequantizeLinear DynamicQuantizeMatMul FastGelu FusedConv
    FusedGemm FusedMatMul GatherBlockQuantized Gelu GroupNorm MatMulBnb4 MatMulInteger16
    MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv NhwcFusedConv NhwcMaxPool
    QAttention QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid
    QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu SkipGroupNorm SkipLayerNormalization
    SkipSimplifiedLayerNormalization""".split()
)
_ENDLESS = {"Loop", "Scan", "SequenceMap"}
MAX_ELEMENTS = 2**31
MAX_DIMENSIONS = 16
_FLOATS = frozenset(
    getattr(TensorProto, kind)
    for kind in """FLOAT FLOAT16 BFLOAT16 DOUBLE FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ
    COMPLEX64 COMPLEX128""".split()
)
_DENSE = "Store it as a dense tensor."
_FIX = "Export it again with torch.onnx.export(model.eval(), (x,), 'model.onnx', external_data=False)."


def check_nodes(path: Path, model: ModelProto) -> None:
    """Raises ModelRefused for an operator that needs foreign code or may run without end."""
    for node in all_nodes(model.graph.node):
        operator, domain = node.op_type[:80], node.domain[:80]
        if operator in _ENDLESS:
            raise ModelRefused(path.name, f"contains a {operator}, which can run without end.", _FIX)
        if node.domain not in _DOMAINS and not (domain == "com.microsoft" and operator in _MICROSOFT):
            raise ModelRefused(
                path.name, f"uses {operator!r} of the operator set {domain!r}, which is not allowed.", _FIX
            )


def check_weights(path: Path, model: ModelProto) -> None:
    """Raises ModelRefused for a tensor that lies in another file, is not as large as it claims, is sparse or
    not finite; wherever it is: weights, attributes, branches, functions.
    """
    nodes = all_nodes(chain(model.graph.node, *(function.node for function in model.functions)))
    attributes = [*chain(*(node.attribute for node in nodes), *(f.attribute_proto for f in model.functions))]
    graphs = [model.graph, *chain(*((a.g, *a.graphs) for a in attributes))]
    inside = ((*([a.t] if a.HasField("t") else []), *a.tensors) for a in attributes)
    for tensor in chain(*(graph.initializer for graph in graphs), *inside):
        _check_tensor(path, tensor)
    for attribute in attributes:
        if any(math.isnan(number) for number in (attribute.f, *attribute.floats)):
            raise _not_finite(f"{path.name}: {attribute.name[:80]}")
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise ModelRefused(f"{path.name}: {attribute.name[:80]}", "is a sparse tensor.", _DENSE)
    for graph in graphs:
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name[:80]
            raise ModelRefused(f"{path.name}: {name}", "is a sparse tensor.", _DENSE)


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    """Raises ModelRefused when it lies in another file, is not as large as it claims, or is not finite."""
    name = f"{path.name}: {tensor.name[:80]}"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        raise ModelRefused(name, f"keeps weights in another file ({location[:80]!r}).", _FIX)
    dims = list(tensor.dims[: MAX_DIMENSIONS + 1])
    if len(dims) > MAX_DIMENSIONS or min(dims, default=0) < 0 or math.prod(dims) > MAX_ELEMENTS:
        raise ModelRefused(name, f"claims the shape {dims[:8]}.", _FIX)
    if tensor.data_type == TensorProto.STRING:
        return
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelRefused(name, f"does not hold what it claims ({str(error)[:120]}).", _FIX) from error
    if tensor.data_type in _FLOATS and _broken(values):
        raise _not_finite(name)


def _broken(values: np.ndarray) -> bool:
    """Some are NaN or infinite, and it is not a mask of 0 and -infinity."""
    infinite = ~np.isfinite(values)
    return bool(infinite.any()) and not bool(((values == 0) | (values == -np.inf)).all())


def _not_finite(where: str) -> ModelRefused:
    return ModelRefused(
        where, "holds NaN or infinite weights.", "Upload a model from before its training went wrong."
    )
