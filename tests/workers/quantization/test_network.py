import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.support.arrays import candidate, easy_data, small_net
from workers.base import Candidate
from workers.errors import StepFailed
from workers.quantization.network import Network, bias_of, float_network, set_bias


def test_the_layers_with_their_batchnorm_folded(exported: tuple[Path, Network]) -> None:
    file, network = exported
    assert [layer.operator for layer in network.layers] == ["Conv", "Conv", "Gemm"]
    operators = [node.op_type for node in network.model.graph.node]
    assert "BatchNormalization" not in operators
    assert len({node.name for node in network.model.graph.node}) == len(operators)
    images = easy_data().splits["validation"][0]
    with torch.no_grad():
        logits = small_net()(images)
    np.testing.assert_allclose(
        ort.InferenceSession(file).run(None, {"input": images.numpy()})[0], logits, rtol=1e-4, atol=1e-5
    )


def test_an_upload_of_another_time_is_folded_and_brought_up_to_date(tmp_path: Path) -> None:
    """Opset 11 with a BatchNormalization, as exporters wrote it."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.normal(size=(4, 1, 3, 3)),
        "scale": generator.uniform(1, 2, 4),
        "shift": generator.normal(size=4),
        "mean": generator.normal(size=4),
        "var": generator.uniform(1, 2, 4),
        "m": generator.normal(size=(144, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["b"]),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["logits"]),
    ]
    save(tmp_path / "old.onnx", nodes, weights, opset=11)
    file, network = float_network(
        Candidate(candidate(None).spec, onnx=tmp_path / "old.onnx"), ("a", "b", "c"), tmp_path
    )
    assert [layer.operator for layer in network.layers] == ["Conv", "MatMul"]
    assert [opset.version for opset in network.model.opset_import] == [13]
    images = easy_data().splits["validation"][0].numpy()
    before, after = (
        ort.InferenceSession(path).run(None, {"input": images})[0] for path in (tmp_path / "old.onnx", file)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_what_is_quantized_already_is_refused(tmp_path: Path) -> None:
    scale, zero = (
        {"s": np.array(0.1), "m": np.ones((64, 3))},
        numpy_helper.from_array(np.uint8(0) * np.ones((), np.uint8), "z"),
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["logits"]),
    ]
    save(tmp_path / "q.onnx", nodes, scale, zero)
    with pytest.raises(StepFailed, match="quantized already"):
        float_network(Candidate(candidate(None).spec, onnx=tmp_path / "q.onnx"), ("a", "b", "c"), tmp_path)


def test_products_of_activations_are_no_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["input"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["input", "t"], ["square"]),
        helper.make_node("Flatten", ["square"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["logits"]),
    ]
    save(tmp_path / "a.onnx", nodes, {"m": np.ones((64, 3))})
    _, network = float_network(
        Candidate(candidate(None).spec, onnx=tmp_path / "a.onnx"), ("a", "b", "c"), tmp_path
    )
    assert [layer.output for layer in network.layers] == ["logits"]


def test_a_new_bias_reaches_the_logits(exported: tuple[Path, Network]) -> None:
    model, last = copy.deepcopy(exported[1].model), exported[1].layers[-1]
    old = bias_of(model, last)
    assert old is not None
    set_bias(model, last, old + np.array([1, 2, 3], np.float32))
    images = {"input": easy_data().splits["validation"][0].numpy()}
    before, after = (
        ort.InferenceSession(m.SerializeToString()).run(None, images)[0] for m in (exported[1].model, model)
    )
    np.testing.assert_allclose(after - before, np.tile([1, 2, 3], (48, 1)), atol=1e-5)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *more: onnx.TensorProto,
    opset: int = 18,
) -> None:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [*(numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()), *more],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
