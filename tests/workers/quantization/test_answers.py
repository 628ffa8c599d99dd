"""The gate against a runtime whose integer arithmetic overflows as vpmaddubsw does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

from tests.support.arrays import candidate, context
from workers.base import Context, Runtime, Session
from workers.errors import GateFailed
from workers.host import host_facts
from workers.quantization.answers import changed_answers, check_saturation, divergence, logits
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_for
from workers.quantization.static import calibrate
from workers.runtimes.onnxruntime import OnnxRuntime


def large_weights() -> torch.fx.GraphModule:
    """Neighbours among the weights are all at their largest, with the same sign."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    signs = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).sign()
    with torch.no_grad():
        net.get_parameter("1.weight").copy_(signs.repeat_interleave(2, dim=1))
    return torch.fx.symbolic_trace(net.eval())


@pytest.fixture
def run(tmp_path: Path) -> Context:
    """Bright pictures: every product is near its largest."""
    run = context(tmp_path)
    for images, _ in run.data.splits.values():  # type: ignore[attr-defined]
        images.uniform_(0.3, 1, generator=torch.Generator().manual_seed(len(images)))
    return run


def written(run: Context, *, vnni: bool) -> tuple[Path, Path]:
    """The float file and its int8 twin for a processor with or without VNNI."""
    float_file, network = float_network(candidate(large_weights()), ("a", "b", "c"), run.scratch)
    (write, _) = calibrate(network, scheme_for("x86_64", vnni=vnni), run, 48).writers().values()
    onnx.save(write(frozenset()), run.scratch / "int8.onnx")
    return float_file, run.scratch / "int8.onnx"


class Saturating(Runtime):
    """A processor without VNNI: pairs of products are added in 16 bits. Only for one linear layer."""

    title = "Saturating"

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> Session:
        if not optimize or "float" in file.name:
            return OnnxRuntime().open(file, threads=threads, optimize=optimize)
        return SixteenBits(file)


class SixteenBits(Session):
    def __init__(self, file: Path) -> None:
        model = onnx.load(file)
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        nodes = {node.op_type: node for node in model.graph.node}
        self.scale, self.zero_point = (stored[name] for name in nodes["QuantizeLinear"].input[1:])
        dequantized = {
            node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
        }
        self.weight, self.weight_scale, _ = (
            stored[name] for name in dequantized[nodes["Gemm"].input[1]].input
        )
        bias, bias_scale, _ = (stored[name] for name in dequantized[nodes["Gemm"].input[2]].input)
        self.bias = bias * bias_scale

    def run(self, inputs: np.ndarray) -> np.ndarray:
        integers = np.rint(inputs.reshape(len(inputs), -1) / self.scale) + int(self.zero_point)
        products = np.clip(integers, 0, 255)[:, None] * self.weight.astype(np.int32)
        pairs = np.clip(products.reshape(len(inputs), len(self.weight), -1, 2).sum(3), -(2**15), 2**15 - 1)
        sums = pairs.sum(2) - int(self.zero_point) * self.weight.astype(np.int32).sum(1)
        return np.asarray(sums * self.scale * self.weight_scale + self.bias, np.float32)


class Elsewhere(Runtime):
    """Where the run is measured; the gate has no business there."""

    title = "Elsewhere"

    def open(self, file: Path, *, threads: int, optimize: bool = True) -> Session:
        raise AssertionError(f"{file} was opened with {threads} threads, optimize={optimize}")


def test_full_range_saturates_without_vnni_and_is_caught(
    run: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    float_file, file = written(run, vnni=True)
    monkeypatch.setattr("workers.quantization.answers.OnnxRuntime", Saturating)
    elsewhere = Context(**{**vars(run), "runtime": Elsewhere()})
    with pytest.raises(GateFailed, match="answers change when the runtime optimises"):
        check_saturation(file, float_file, elsewhere)


def test_seven_bits_do_not_saturate(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    float_file, file = written(run, vnni=False)
    monkeypatch.setattr("workers.quantization.answers.OnnxRuntime", Saturating)
    check_saturation(file, float_file, run)


def test_a_healthy_file_passes_on_this_processor(run: Context) -> None:
    float_file, file = written(run, vnni=host_facts().vnni)
    check_saturation(file, float_file, run)


@pytest.mark.skipif(host_facts().vnni, reason="this processor has VNNI: nothing saturates")
def test_full_range_is_caught_on_a_processor_without_vnni(run: Context) -> None:
    float_file, file = written(run, vnni=True)
    with pytest.raises(GateFailed):
        check_saturation(file, float_file, run)


def test_only_a_clear_other_answer_counts() -> None:
    exact = np.array([[0.0, 1.0], [0.0, 0.03], [0.0, 1.0], [1.0, 0.0]], np.float32)
    plain = exact + np.float32(0.01) * np.array([[1, -1]] * 4, np.float32)  # noise 0.01, ties below 0.04
    fast = np.array([[0.0, 1.0], [0.03, 0.0], [1.0, 0.0], [np.nan, 0.0]], np.float32)
    assert changed_answers(exact, plain, fast).tolist() == [False, False, True, True]


def test_divergence_is_that_of_torch() -> None:
    first, second = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0)) * 30
    expected = F.kl_div(second.log_softmax(1), first.log_softmax(1), log_target=True, reduction="batchmean")
    assert divergence(first.numpy(), second.numpy()) == pytest.approx(float(expected), rel=1e-5)
    assert divergence(first.numpy(), first.numpy()) == 0


def test_answers_come_in_the_order_of_the_split(exported: tuple[Path, object], tmp_path: Path) -> None:
    run = context(tmp_path)
    every = logits(exported[0], run)
    assert every.shape == (48, 3)
    np.testing.assert_array_equal(logits(exported[0], run, samples=10), every[:10])
