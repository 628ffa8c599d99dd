"""The rounding that training sees is that of the file which comes out."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.support.arrays import candidate, easy_data, small_net
from workers.base import Context
from workers.quantization.answers import logits
from workers.quantization.aware import (
    RoundedActivation,
    RoundedWeight,
    folded,
    with_rounding,
    without_rounding,
)
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_for
from workers.quantization.static import calibrate

SCHEME = scheme_for("x86_64", vnni=False)


def residual() -> torch.fx.GraphModule:
    """Activations that are read twice, added and pooled."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.second, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            kept = torch.relu(self.norm(self.first(images)))
            added = torch.relu(self.second(kept) + kept)
            return self.head(added.mean((2, 3)))  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
        net.train()(easy_data().splits["train"][0])  # statistics that are not 0 and 1
    return torch.fx.symbolic_trace(net.eval())


def test_folding_changes_no_answer() -> None:
    images = easy_data().splits["validation"][0]
    for net in (small_net(), residual()):
        before = copy.deepcopy(net.state_dict())
        without = folded(net)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in without.modules())
        with torch.no_grad():
            torch.testing.assert_close(without(images), net(images), rtol=1e-4, atol=1e-5)
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("make", [small_net, residual])
def test_rounds_as_the_exported_file_does(make: object, run: Context) -> None:
    graph = folded(make())  # type: ignore[operator]
    float_file, network = float_network(candidate(graph), ("a", "b", "c"), run.scratch)
    calibrated = calibrate(network, SCHEME, run, 48)
    rounding, found = with_rounding(graph, network, calibrated.simulated, SCHEME)
    (write,) = calibrated.writers(wide=False).values()
    onnx.save(write(frozenset()), run.scratch / "int8.onnx")
    with torch.no_grad():
        simulated = rounding(easy_data().splits["validation"][0]).numpy()
    exact, real = logits(float_file, run), logits(run.scratch / "int8.onnx", run)
    assert found == 3
    # Sums are rounded in the file and not in training.
    assert np.square(simulated - real).mean() < 0.3 * np.square(exact - real).mean()


def test_the_weights_stay_trainable_and_come_back_alone(run: Context) -> None:
    graph = folded(residual())
    names = set(graph.state_dict())
    _, network = float_network(candidate(graph), ("a", "b", "c"), run.scratch)
    rounding, _ = with_rounding(graph, network, calibrate(network, SCHEME, run, 48).simulated, SCHEME)
    rounding.train().requires_grad_(True)(easy_data().splits["train"][0]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rounding.parameters())
    back = without_rounding(rounding)
    assert set(back.state_dict()) == names
    assert all(torch.equal(tensor, graph.state_dict()[name]) for name, tensor in back.state_dict().items())


def test_an_activation_is_rounded_and_passes_gradients_inside_its_range() -> None:
    values = torch.tensor([-3.0, -0.51, 0.26, 0.99, 9.0], requires_grad=True)
    rounded = RoundedActivation((-1.0, 254 / 255 * 1.0 + 1 / 255))(values)  # steps of 2 / 255
    step = 2 / 255
    expected = [
        -128 * step,
        round(-0.51 / step) * step,
        round(0.26 / step) * step,
        round(0.99 / step) * step,
        127 * step,
    ]
    torch.testing.assert_close(rounded.detach(), torch.tensor(expected), rtol=0, atol=1e-6)
    rounded.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("limit", [64, 127])
def test_a_weight_is_rounded_per_channel(limit: int) -> None:
    weight = torch.tensor([[0.1, -0.4], [100.0, 33.0], [0.0, 0.0]])
    steps = torch.tensor([[0.4 / limit], [100.0 / limit], [1.0]])
    torch.testing.assert_close(RoundedWeight(limit)(weight), (weight / steps).round() * steps)
