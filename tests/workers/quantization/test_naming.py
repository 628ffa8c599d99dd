"""Layers of the file are called as the modules that they were, whatever the exporter called their weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tests.support.arrays import candidate, context
from workers.base import Candidate
from workers.methods.quantization import Quantization
from workers.quantization import trials
from workers.quantization.naming import module_names
from workers.quantization.network import float_network
from workers.quantization.trials import Trials

CLASSES = ("a", "b", "c")


class Block(nn.Module):
    """A small transformer's feed-forward part: products without biases, two of them with equal weights, one
    with a bias, and a convolution whose weights BatchNorm changes."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(1, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8)
        self.up, self.down = nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False)
        self.one, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.biased, self.fc = nn.Linear(8, 8), nn.Linear(8, 3)
        self.other.load_state_dict(self.one.state_dict())
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patch(x)).flatten(2).transpose(1, 2)
        x = x + self.down(torch.relu(self.up(x)))
        x = self.biased(self.other(torch.relu(self.one(x))))
        logits: torch.Tensor = self.fc(x.mean(1))
        return logits


@pytest.fixture
def model() -> Candidate:
    torch.manual_seed(0)
    return candidate(torch.fx.symbolic_trace(Block().eval()))


def test_every_layer_is_found(model: Candidate, tmp_path: Path) -> None:
    file, network = float_network(model, CLASSES, tmp_path / "ours")
    names = module_names(network, model.graph)
    assert list(names.values()) == ["patch", "up", "down", "one", "other", "biased", "fc"]  # as they run
    upload = Candidate(model.spec, onnx=file)
    _, again = float_network(upload, CLASSES, tmp_path / "upload")
    told = module_names(again, None)
    assert [told[layer.node] for layer in again.layers if layer.operator != "MatMul"] == ["patch", "fc"]
    assert "biased" in told.values()  # by what is added behind it
    assert len(set(told.values())) == 6  # equal weights are stored once, and nothing else tells them apart


def test_a_product_without_a_name_stays_in_float_by_that_of_its_module(
    model: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [0.5] * len(files))
    monkeypatch.setattr(trials, "LATENCY", None)
    step = Quantization(engine="onnxruntime", keep_in_float="up", max_drop=100)
    made = step.apply(model, context(tmp_path))
    assert "1 of 7 layers stayed in float: up." in made.notes
    assert made.onnx is not None
    floats = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(made.onnx).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    ]
    assert model.graph is not None
    for name, kept in (("up", True), ("down", False)):
        weight = model.graph.get_parameter(f"{name}.weight").detach().numpy().T
        assert any(np.array_equal(stored, weight) for stored in floats) == kept
