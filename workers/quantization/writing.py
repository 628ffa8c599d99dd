"""Write the quantized network: static (QDQ), dynamic or half precision, some layers left in float."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_quant_input_suffix
from onnxruntime.transformers.float16 import convert_float_to_float16

from workers.quantization.network import Layer, Network
from workers.quantization.ranges import Range
from workers.quantization.scheme import Scheme

LAYERS = ("Conv", "Gemm", "MatMul")
#: What stands between two layers and loses little in 8 bits. Not averages: ONNX Runtime's, once fused, do not
#: give what the file says.
NARROW = (*LAYERS, "Add", "Relu", "Clip", "MaxPool", "Concat")
#: With what else ONNX Runtime computes in integers: fewer conversions between, more rounding.
WIDE = (
    *NARROW, "Mul", "LeakyRelu", "Sigmoid", "Softmax", "Where", "Flatten", "Reshape", "Resize", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
#: What ONNX Runtime appends to the name of an output that it quantizes.
TENSOR_NAME_QUANT_INPUT_SUFFIX = add_quant_input_suffix("")

#: Writes the network with the named layers in float.
Writer = Callable[[frozenset[str]], ModelProto]


def static(
    network: Network, ranges: Mapping[str, Range], scheme: Scheme, operators: tuple[str, ...]
) -> Writer:
    """Integer activations and weights; QuantizeLinear and DequantizeLinear around every operator."""

    def write(in_float: frozenset[str]) -> ModelProto:
        quantizer = QDQQuantizer(
            copy.deepcopy(network.model),
            per_channel=True,
            reduce_range=scheme.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range={
                name: TensorData(lowest=np.float32(low), highest=np.float32(high))
                for name, (low, high) in ranges.items()
            },
            nodes_to_quantize=_quantizable(network, in_float, operators),
            nodes_to_exclude=[],
            op_types_to_quantize=list(operators),
            extra_options={},
        )
        model = quantizer.quantize_model()
        _leave_logits(model)
        _keep_in_float(model, network, in_float)
        return _in_order(model)

    return write


def quantized_tensors(model: ModelProto) -> set[str]:
    """Names that the activations with a range had in float."""
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0].removesuffix(TENSOR_NAME_QUANT_INPUT_SUFFIX) for node in nodes}


def _leave_logits(model: ModelProto) -> None:
    """256 steps for an output that nothing goes on from would make ties, and save nothing."""
    makers = {node.output[0]: node for node in model.graph.node}
    readers = Counter(name for node in model.graph.node for name in node.input)
    for output in (value.name for value in model.graph.output):
        again = makers[output]
        coarse = makers.get(again.input[0]) if again.op_type == "DequantizeLinear" else None
        if coarse is None or readers[output]:
            continue
        exact = makers[coarse.input[0]]
        if readers[exact.output[0]] == 1:
            exact.output[0] = output
            for node in (coarse, again):
                model.graph.node.remove(node)


def _keep_in_float(model: ModelProto, network: Network, in_float: frozenset[str]) -> None:
    """Stop ONNX Runtime from quantizing the weights of these layers by itself, per tensor.

    Its WeightBiasQuantization takes every Conv and Gemm between a DequantizeLinear with one scale and a
    QuantizeLinear. The same scale once per channel says the same, and it leaves the layer alone.
    """
    makers = {node.output[0]: node for node in model.graph.node}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    for layer in network.layers:
        maker = makers.get(nodes[layer.node].input[0]) if layer.node in in_float else None
        if maker is None or maker.op_type != "DequantizeLinear" or layer.operator == "MatMul":
            continue
        ranges = []
        for name in maker.input[1:]:
            per_channel = np.tile(numpy_helper.to_array(stored[name]), _input_channels(network, layer))
            ranges.append(f"{name}_{layer.node}")
            model.graph.initializer.append(numpy_helper.from_array(per_channel, ranges[-1]))
        nodes[layer.node].input[0] = f"{layer.input}_{layer.node}"
        model.graph.node.append(
            helper.make_node(
                "DequantizeLinear", [maker.input[0], *ranges], [nodes[layer.node].input[0]], axis=1
            )
        )


def _input_channels(network: Network, layer: Layer) -> int:
    dims = network.weights[layer.weight].dims
    if layer.operator == "Gemm":
        return int(dims[1 - layer.weight_axis])
    node = next(node for node in network.model.graph.node if node.name == layer.node)
    return int(dims[1]) * next((a.i for a in node.attribute if a.name == "group"), 1)


def dynamic(network: Network, scheme: Scheme) -> Writer:
    """Integer weights of matrix products; the range of their inputs is found at every call."""

    def write(in_float: frozenset[str]) -> ModelProto:
        chosen = {
            # ONNX Runtime turns every Gemm into a product of this name first.
            f"{layer.node}_MatMul" if layer.operator == "Gemm" else layer.node
            for layer in network.layers
            if layer.operator != "Conv" and layer.node not in in_float
        }
        quantizer = ONNXQuantizer(
            copy.deepcopy(network.model),
            per_channel=True,
            reduce_range=scheme.reduce_range,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=sorted(chosen),
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        return _in_order(quantizer.model.model)

    return write


def bfloat16(network: Network) -> Writer:
    """Weights stored as bfloat16 and computed with in float32: no runtime here multiplies bfloat16."""

    def write(in_float: frozenset[str]) -> ModelProto:
        model = copy.deepcopy(network.model)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        for weight in {layer.weight for layer in network.layers if layer.node not in in_float}:
            values = numpy_helper.to_array(stored[weight])
            for node in model.graph.node:
                node.input[:] = [f"{weight}_float" if name == weight else name for name in node.input]
            model.graph.node.append(
                helper.make_node("Cast", [weight], [f"{weight}_float"], to=TensorProto.FLOAT)
            )
            stored[weight].CopyFrom(numpy_helper.from_array(values.astype(ml_dtypes.bfloat16), weight))
        return _in_order(model)

    return write


def float16(network: Network) -> Writer:
    """float16 weights and activations; input and output stay float32."""

    def write(in_float: frozenset[str]) -> ModelProto:
        model = convert_float_to_float16(
            copy.deepcopy(network.model), keep_io_types=True, node_block_list=list(in_float)
        )
        return _in_order(model)

    return write


def _in_order(model: ModelProto) -> ModelProto:
    """The rules of ONNX want every node behind those it reads from; the writers append theirs."""
    wrapped = ONNXModel(model)
    wrapped.topological_sort()
    wrapped.clean_initializers()
    return model


def _quantizable(network: Network, in_float: frozenset[str], operators: tuple[str, ...]) -> list[str]:
    """Nodes to quantize: layers that are not kept in float, and what only such layers lead into."""
    layers = {layer.node for layer in network.layers}
    producers = {name: node for node in network.model.graph.node for name in node.output}
    chosen = []
    for node in network.model.graph.node:
        if node.op_type not in operators:
            continue
        if node.op_type in LAYERS:
            taken = node.name in layers - in_float
        else:
            before = {producers[name].name for name in node.input if name in producers} & layers
            taken = not before or not before <= in_float
        if taken:
            chosen.append(node.name)
    return chosen
