"""The float ONNX file that is quantized: folded, with a name for every node, and its layers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from workers.base import Candidate
from workers.deploy.export import export_onnx, export_segments
from workers.errors import StepFailed
from workers.quantization.staged import join, save
from workers.runtimes.onnxruntime import ERRORS_ONLY

#: Per-channel scales came with opset 13.
MIN_OPSET = 13
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product with constant weights.

    node: its name. adder: the node that adds its bias; the layer itself, or an Add behind a MatMul.
    output_axis: channels in the output. weight_axis: output channels in the weight.
    """

    node: str
    operator: str
    input: str
    weight: str
    output: str
    output_axis: int
    weight_axis: int
    adder: str


@dataclass(frozen=True)
class Network:
    """A float model with shapes, and what of it has weights."""

    model: ModelProto
    layers: tuple[Layer, ...]

    @property
    def weights(self) -> dict[str, TensorProto]:
        return {tensor.name: tensor for tensor in self.model.graph.initializer}


def float_network(candidate: Candidate, classes: tuple[str, ...], folder: Path) -> tuple[Path, Network]:
    """Export the candidate, fold BatchNorm and constants, and look at it.

    Returns the float file and the network in it. Raises StepFailed for a file that is quantized already.
    """
    folder.mkdir(exist_ok=True)
    exported, folded = folder / "exported.onnx", folder / "float.onnx"
    if candidate.exits is None:
        export_onnx(candidate, exported, classes)
    else:
        onnx.save(join(export_segments(candidate, exported)), exported)
    _update(exported)
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    ort.InferenceSession(exported, options, ["CPUExecutionProvider"])
    model = load_model_with_shape_infer(folded)
    _tidy(model)
    save(model, folded)
    return folded, Network(model, tuple(_layers(model)))


def _update(file: Path) -> None:
    model = onnx.load(file)
    if any(node.op_type in QUANTIZED or node.op_type.startswith("QLinear") for node in model.graph.node):
        raise StepFailed("quantization", "this ONNX file is quantized already.", "Leave this step out.")
    opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    if opset < MIN_OPSET:
        onnx.save(onnx.version_converter.convert_version(model, MIN_OPSET), file)


def _tidy(model: ModelProto) -> None:
    """A name for every node, and only the operator sets that are used."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    used = {node.domain or "" for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if (opset.domain or "") in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)


def _layers(model: ModelProto) -> list[Layer]:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    found = []
    for node in model.graph.node:
        constant = [name in weights for name in node.input[1:] if name]
        if node.op_type not in ("Conv", "Gemm", "MatMul") or not constant or not all(constant):
            continue
        if node.input[0] in weights or weights[node.input[1]].data_type != TensorProto.FLOAT:
            continue
        if node.op_type == "MatMul" and len(weights[node.input[1]].dims) != 2:
            continue
        adder = node
        if node.op_type == "MatMul" and readers[node.output[0]] == 1:
            adder = _adder(model, node, weights) or node
        found.append(
            Layer(
                node=node.name,
                operator=node.op_type,
                input=node.input[0],
                weight=node.input[1],
                output=node.output[0],
                output_axis=-1 if node.op_type == "MatMul" else 1,
                weight_axis=_weight_axis(node),
                adder=adder.name,
            )
        )
    return found


def _weight_axis(node: NodeProto) -> int:
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _adder(model: ModelProto, product: NodeProto, weights: dict[str, TensorProto]) -> NodeProto | None:
    """The Add of a constant vector behind a MatMul."""
    for node in model.graph.node:
        if node.op_type == "Add" and product.output[0] in node.input:
            other = next((name for name in node.input if name != product.output[0]), "")
            if other in weights and list(weights[other].dims) == [weights[product.input[1]].dims[1]]:
                return node
    return None


def bias_of(model: ModelProto, layer: Layer) -> np.ndarray | None:
    """(channels,) float32; None where nothing is added."""
    name = bias_name(model, layer)
    if name is None:
        return None
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return numpy_helper.to_array(weights[name])


def bias_name(model: ModelProto, layer: Layer) -> str | None:
    """None where nothing is added."""
    index = _bias_input(model, layer)
    node = next(node for node in model.graph.node if node.name == layer.adder)
    return None if index is None or index >= len(node.input) else node.input[index] or None


def set_bias(model: ModelProto, layer: Layer, bias: np.ndarray) -> None:
    """Give the layer a bias (channels,) of its own, in place. A MatMul without an Add takes none."""
    index = _bias_input(model, layer)
    if index is None:
        return
    node = next(node for node in model.graph.node if node.name == layer.adder)
    name = f"{layer.output}_bias"
    known = next((tensor for tensor in model.graph.initializer if tensor.name == name), None)
    made = numpy_helper.from_array(bias.astype(np.float32), name)
    if known is None:
        model.graph.initializer.append(made)
    else:
        known.CopyFrom(made)
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = name


def _bias_input(model: ModelProto, layer: Layer) -> int | None:
    """Which input of the adder the bias is."""
    if layer.operator != "MatMul":
        return 2
    node = next(node for node in model.graph.node if node.name == layer.adder)
    if layer.adder == layer.node:
        return None
    return 1 - list(node.input).index(layer.output)
