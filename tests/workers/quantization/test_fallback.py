import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.support.arrays import candidate
from workers.base import Context
from workers.quantization.answers import logits
from workers.quantization.fallback import layer_times, ranked_layers, shortest_prefix
from workers.quantization.network import Network, float_network
from workers.quantization.scheme import scheme_for
from workers.quantization.static import calibrate

LAYERS = [f"layer{number}" for number in range(40)]


@pytest.mark.parametrize("needed", [1, 2, 7, 20, 39])
def test_finds_the_shortest_beginning_with_few_validations(needed: int) -> None:
    asked = []

    def good(in_float: frozenset[str]) -> bool:
        asked.append(in_float)
        return set(LAYERS[:needed]) <= in_float

    assert shortest_prefix(LAYERS, good) == frozenset(LAYERS[:needed])
    assert len(asked) <= math.ceil(math.log2(len(LAYERS)))


@pytest.mark.parametrize("layers", [LAYERS, LAYERS[:1], []])
def test_says_when_only_float_is_good_enough(layers: list[str]) -> None:
    assert shortest_prefix(layers, lambda _: False) is None


def test_the_layer_that_rounding_ruins_comes_first(run: Context) -> None:
    """One outlier per channel leaves nothing of the other weights of the second of three layers."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 3),
    )  # fmt: skip
    with torch.no_grad():
        weight = net.get_submodule("2").get_parameter("weight")
        weight.mul_(20)
        net.get_submodule("0").get_parameter("weight")[0] = 0
        net.get_submodule("0").get_parameter("bias")[0] = -1  # channel 0 is always zero
        weight[:, 0, 0, 0] = 1e4
    file, network = float_network(
        candidate(torch.fx.symbolic_trace(net.eval())), ("a", "b", "c"), run.scratch
    )
    (write, _) = calibrate(network, scheme_for("x86_64", vnni=True), run, 48).writers().values()
    layers = [layer.node for layer in network.layers]
    assert ranked_layers(network, write, layers, file, run)[0] == layers[1]
    onnx.save(write(frozenset(layers[1:2])), run.scratch / "mixed.onnx")
    exact, mixed = (logits(path, run) for path in (file, run.scratch / "mixed.onnx"))
    assert np.abs(mixed - exact).max() < 0.05 * np.abs(exact).max()


def test_layer_times_are_those_of_the_profile(exported: tuple[Path, Network], run: Context) -> None:
    file, network = exported
    times = layer_times(file, network, run)
    assert set(times) == {layer.node for layer in network.layers}
    assert all(0 < seconds < 0.1 for seconds in times.values())
    assert not list(run.scratch.glob("profile*"))
    assert np.isfinite(list(times.values())).all()
