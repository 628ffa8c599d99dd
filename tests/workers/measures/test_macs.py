"""Against formulas by hand; the input is (1, 1, 8, 8)."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.workers.measures.conftest import save
from workers.base import Artefact, Bench, Candidate, ModelSpec
from workers.measures.macs import Macs, count_file_macs, count_macs

TOKENS, WIDTH, HEADS = 8, 8, 2


class FusedAttention(nn.Module):
    """Every row of the picture is a token; nothing but the attention itself."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        heads = inputs.reshape(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)


class EncoderLayer(nn.Module):
    """In evaluation mode PyTorch runs this as one opaque operator, unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, dim_feedforward=32, batch_first=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        encoded: torch.Tensor = self.layer(inputs.squeeze(1))
        return encoded


ATTENTION = 2 * TOKENS * TOKENS * WIDTH  # queries by keys, and scores by values; heads share the width
PROJECTIONS = 4 * TOKENS * WIDTH * WIDTH  # queries, keys, values, output
BY_HAND = {
    "conv": (nn.Conv2d(1, 6, 3, stride=2, padding=1), 4 * 4 * 6 * 1 * 9),
    "depthwise": (
        nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)),
        64 * 6 + 64 * 6 * 9,
    ),
    "grouped": (nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 3, groups=2)), 64 * 6 + 36 * 4 * 3 * 9),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), 64 * 5),
    "linear on tokens": (nn.Linear(WIDTH, 5), TOKENS * WIDTH * 5),
    "fused attention": (FusedAttention(), ATTENTION),
    "encoder": (EncoderLayer(), PROJECTIONS + ATTENTION + 2 * TOKENS * WIDTH * 32),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_agrees_with_the_formula(name: str, spec: ModelSpec) -> None:
    net, macs = BY_HAND[name]
    assert count_macs(torch.fx.symbolic_trace(net.eval()), spec) == macs


def test_leaves_everything_as_it_was(spec: ModelSpec) -> None:
    """Fails when the network is left in evaluation mode, or is run in training mode."""
    net = nn.Sequential(nn.Conv2d(1, 6, 8), nn.BatchNorm2d(6), nn.Dropout())
    graph = torch.fx.symbolic_trace(net)
    graph.get_submodule("2").eval()
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    count_macs(graph, spec)
    assert [graph.get_submodule(name).training for name in ("0", "1", "2")] == [True, True, False]
    assert graph.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.state_dict().items())


def test_fast_path_is_given_back_after_an_error(spec: ModelSpec) -> None:
    with pytest.raises(RuntimeError):
        count_macs(torch.fx.symbolic_trace(nn.Conv2d(3, 6, 1)), spec)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_file_without_a_graph_is_counted_itself(linear: Artefact, spec: ModelSpec, bench: Bench) -> None:
    known = Artefact(linear.file, Candidate(spec, graph=torch.fx.symbolic_trace(nn.Conv2d(1, 2, 1))))
    (first,), (second,) = Macs().take([known, linear], bench)
    assert (first.name, first.value, first.better) == ("macs", 128, "lower")
    assert (second.name, second.value) == ("macs", 64 * 5)


@pytest.mark.parametrize("name", ["grouped", "linear on tokens", "encoder"])
def test_the_exported_file_costs_as_much_as_the_graph(name: str, tmp_path: Path) -> None:
    net, macs = BY_HAND[name]
    program = torch.export.export(net.eval(), (torch.zeros(1, 1, 8, 8),))
    torch.onnx.export(program, (), str(tmp_path / "net.onnx"), dynamo=True, verbose=False)
    assert count_file_macs(tmp_path / "net.onnx") == macs


def test_integers_cost_as_much_as_floats(tmp_path: Path) -> None:
    """QLinearConv with 2 channels of 3x3 from 1, then MatMulInteger of (1, 72) with (72, 5)."""
    ones = {
        "w": np.ones((2, 1, 3, 3), np.int8),
        "m": np.ones((72, 5), np.int8),
        "s": np.float32(1),
        "u": np.uint8(0),
        "i": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "u"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "u", "w", "s", "i", "s", "u"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMulInteger", ["f", "m"], ["p"]),
        helper.make_node("Cast", ["p"], ["logits"], to=TensorProto.FLOAT),
    ]
    file = save(
        tmp_path / "q.onnx", nodes, [numpy_helper.from_array(np.array(v), k) for k, v in ones.items()]
    )
    assert count_file_macs(file) == 36 * 2 * 9 + 72 * 5


@pytest.mark.parametrize("operator", ["Einsum", "Resize"])
def test_a_file_that_does_not_tell_keeps_its_secret(operator: str, tmp_path: Path) -> None:
    """An operator that is not counted; a shape that hangs on the data."""
    weight = numpy_helper.from_array(np.ones((8, 5), np.float32), "w")
    sizes = [
        helper.make_node("ReduceMax", ["input"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Expand", ["whole", "four"], ["sizes"]),
        helper.make_node("Resize", ["input", "", "", "sizes"], ["larger"]),
        helper.make_node("MatMul", ["larger", "w"], ["logits"]),
    ]
    einsum = [helper.make_node("Einsum", ["input", "w"], ["logits"], equation="nchw,wk->nk")]
    four = numpy_helper.from_array(np.array([4]), "four")
    file = save(tmp_path / "x.onnx", einsum if operator == "Einsum" else sizes, [weight, four])
    assert count_file_macs(file) is None
