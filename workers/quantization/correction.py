"""Take the mean error that rounding gives a layer's channels back out of its bias."""

import copy

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX

from workers.base import Context
from workers.quantization.network import Layer, Network, bias_of, set_bias
from workers.quantization.probes import Probes, calibration_batches
from workers.quantization.ranges import Range


def corrected(
    network: Network, quantized: ModelProto, ranges: dict[str, Range], context: Context, samples: int
) -> Network:
    """The float network with biases from which each layer's mean shift was taken.

    Nagel et al. 2019 (arXiv:1906.04721), section 4.2, measured instead of assumed: each layer is computed
    beside itself with its quantized input and weights; b' = b - mean(quantized - float), per channel.
    """
    shifts = mean_shifts(network, quantized, ranges, context, samples)
    model = copy.deepcopy(network.model)
    nodes = {node.name: node for node in model.graph.node}
    for layer in network.layers:
        shift = shifts.get(layer.node)
        if shift is not None:
            bias = bias_of(model, layer)
            start = np.zeros_like(shift) if bias is None else np.broadcast_to(bias.reshape(-1), shift.shape)
            set_bias(model, layer, start - shift / _beta(nodes[layer.node]))
    return Network(model, network.layers)


def mean_shifts(
    network: Network, quantized: ModelProto, ranges: dict[str, Range], context: Context, samples: int
) -> dict[str, np.ndarray]:
    """By the layer's node: (channels,) mean of its output with quantized input and weights, less without."""
    weights = dequantized_weights(quantized)
    nodes = {node.name: node for node in network.model.graph.node}
    probes, outputs = Probes(network.model), {}
    for number, layer in enumerate(network.layers):
        if layer.weight in weights and layer.input in ranges:
            outputs[layer.node] = _shift(probes, layer, nodes[layer.node], weights, ranges, f"shift{number}")
    sums, counts = dict.fromkeys(outputs, np.zeros(1)), dict.fromkeys(outputs, 0.0)
    for _, values in probes.run(calibration_batches(context, samples, 8)):
        for name, label in outputs.items():
            total = values[f"{label}_sum"].astype(np.float64)
            sums[name] = sums[name] + total
            counts[name] += float(values[f"{label}_count"]) / len(total)
    return {name: value / counts[name] for name, value in sums.items()}


def _shift(
    probes: Probes,
    layer: Layer,
    node: NodeProto,
    weights: dict[str, np.ndarray],
    ranges: dict[str, Range],
    label: str,
) -> str:
    coarse = probes.quantized(layer.input, *ranges[layer.input], label)
    weight = probes.constant(f"{label}_weight", weights[layer.weight])
    made = probes.add_like(node, [coarse, weight, *node.input[2:]], f"{label}_made")
    off = probes.add("Sub", [made, layer.output], f"{label}_off")
    if layer.operator == "MatMul":  # of any rank
        shape = np.array([-1, weights[layer.weight].shape[layer.weight_axis]])
        off = probes.add("Reshape", [off, probes.constant(f"{label}_shape", shape)], f"{label}_rows")
    rank = weights[layer.weight].ndim
    axes = probes.constant(f"{label}_axes", np.array([0, *range(2, rank)]))
    # Not ReduceMean: before opset 18 it took its axes in another way.
    probes.give(probes.add("ReduceSum", [off, axes], f"{label}_sum", keepdims=0))
    count = probes.add("Size", [off], f"{label}_size")
    probes.give(probes.add("Cast", [count], f"{label}_count", to=TensorProto.FLOAT))
    return label


def dequantized_weights(quantized: ModelProto) -> dict[str, np.ndarray]:
    """By the name that it had in float: each weight as its integers say."""
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    found = {}
    for node in quantized.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            continue
        integers, scale, zero_point = (numpy_helper.to_array(stored[name]) for name in node.input[:3])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if place == axis else 1 for place in range(integers.ndim)] if scale.ndim else []
        steps = integers.astype(np.float32) - zero_point.astype(np.float32).reshape(shape)
        found[node.input[0].removesuffix(TENSOR_NAME_QUANT_SUFFIX)] = steps * scale.reshape(shape)
    return found


def _beta(node: NodeProto) -> float:
    """What a Gemm multiplies its bias with."""
    return next((attribute.f for attribute in node.attribute if attribute.name == "beta"), 1.0)
