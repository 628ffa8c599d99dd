import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from workers.errors import ModelRefused
from workers.host import pinned
from workers.runtimes.onnxruntime import OnnxRuntime

WEIGHT = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """flatten -> matmul -> relu, for (N, 3, 2, 2)."""
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["product"]),
        helper.make_node("Relu", ["product"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        # ONNX Runtime warns about weights that nothing uses.
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(WEIGHT, "unused")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("samples", [1, 7])
def test_gives_the_logits(file: Path, optimize: bool, samples: int) -> None:
    inputs = np.random.default_rng(1).normal(size=(samples, 3, 2, 2)).astype(np.float32)
    logits = OnnxRuntime().open(file, threads=1, optimize=optimize).run(inputs)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(
        logits, np.maximum(inputs.reshape(samples, 12) @ WEIGHT, 0), rtol=1e-5, atol=1e-6
    )


def test_asks_for_what_the_protocol_promises(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ort.SessionOptions] = []

    class Recorded(ort.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: Path, options: ort.SessionOptions, providers: list[str]) -> None:
            assert providers == ["CPUExecutionProvider"]
            asked.append(options)
            super().__init__(path, options, providers)

    monkeypatch.setattr(ort, "InferenceSession", Recorded)
    OnnxRuntime().open(file, threads=2)
    OnnxRuntime().open(file, threads=1, optimize=False)
    fast, plain = asked
    assert (fast.intra_op_num_threads, plain.intra_op_num_threads) == (2, 1)
    assert fast.inter_op_num_threads == 1
    assert fast.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert fast.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert fast.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert plain.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL


@pytest.mark.parametrize("content", [b"", b"not a protobuf", b"\x08\x09"])
def test_refuses_what_it_cannot_load(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match=r"broken\.onnx: ONNX Runtime .* cannot load it") as caught:
        OnnxRuntime().open(path, threads=1)
    assert str(tmp_path) not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_writes_no_file_and_says_nothing(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    OnnxRuntime().open(file, threads=2).run(np.zeros((1, 3, 2, 2), np.float32))
    assert list(file.parent.iterdir()) == [file]
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_its_threads_stay_on_the_pinned_cores(file: Path) -> None:
    """The latency measure relies on this: the pool is made when the file is opened, and inherits."""
    torch.rand(64, 64) @ torch.rand(64, 64)
    before = set(Path("/proc/self/task").iterdir())
    with pinned(1):
        cores = os.sched_getaffinity(0)
        session = OnnxRuntime().open(file, threads=3)
        pool = set(Path("/proc/self/task").iterdir()) - before
        assert len(pool) == 2
        assert all(os.sched_getaffinity(int(thread.name)) == cores for thread in pool)
        session.run(np.zeros((1, 3, 2, 2), np.float32))
