from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from tests.support.staged import CLASSES, PLAN, SPEC
from workers.base import Artefact, Bench, Candidate, ModelSpec
from workers.deploy.one_file import compose_one_file
from workers.measures.parameters import Parameters


def value(artefact: Artefact, bench: Bench) -> float | None:
    ((measurement,),) = Parameters().take([artefact], bench)
    assert (measurement.name, measurement.better, measurement.target) == ("parameters", "lower", None)
    return measurement.value


def test_the_graph_is_counted_without_statistics_and_shared_weights_once(
    linear: Artefact, spec: ModelSpec, bench: Bench
) -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1))
    net[3].weight = net[2].weight
    artefact = Artefact(linear.file, Candidate(spec, graph=torch.fx.symbolic_trace(net)))
    assert value(artefact, bench) == (6 * 9 + 6) + (6 + 6) + (36 + 6) + 6


def test_shapes_in_a_file_are_no_weights(linear: Artefact, bench: Bench) -> None:
    assert value(linear, bench) == 64 * 5


@pytest.mark.parametrize("bias_type", [np.float32, np.int32])
def test_quantized_weights_are_weights_and_their_scales_are_not(
    tmp_path: Path, spec: ModelSpec, bench: Bench, bias_type: Any
) -> None:
    """Quantizing removes no weight. Fails when only floats are counted, or all initializers."""
    quantized = bias_type is np.int32
    tensors = {
        "shape": np.array([-1, 64]),
        "weight": np.ones((64, 5), np.int8),
        "weight_scale": np.ones(5, np.float32),
        "weight_zero": np.zeros(5, np.int8),
        "bias": np.ones(5, bias_type),
        "bias_scale": np.ones(5, np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["flat"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["floats"], axis=1),
        helper.make_node("MatMul", ["flat", "floats"], ["product"]),
        helper.make_node("Add", ["product", "bias_floats" if quantized else "bias"], ["logits"]),
    ]
    if quantized:
        nodes.insert(3, helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["bias_floats"], axis=0))
    else:
        del tensors["bias_scale"]
    file = save(tmp_path / "quantized.onnx", nodes, tensors)
    assert ort.InferenceSession(file).run(None, {"input": np.ones((1, 1, 8, 8), np.float32)})[0][0, 0] == 65
    assert value(Artefact(file, Candidate(spec)), bench) == 64 * 5 + 5


def save(path: Path, nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray]) -> Path:
    inputs = [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 1, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 5])]
    initializers = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_weights_inside_branches_are_counted(int8_files: list[Path], tmp_path: Path, bench: Bench) -> None:
    compose_one_file(int8_files, PLAN, tmp_path / "model.onnx", SPEC, CLASSES)
    whole, *parts = (
        value(Artefact(file, Candidate(SPEC)), bench) or 0 for file in (tmp_path / "model.onnx", *int8_files)
    )
    settings = 4  # two thresholds, two temperatures
    assert whole == sum(parts) + settings
