"""The mean shift of a layer, computed by hand with torch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.arrays import candidate, easy_data
from workers.base import Context
from workers.quantization.correction import corrected, dequantized_weights, mean_shifts
from workers.quantization.network import bias_of, float_network
from workers.quantization.scheme import scheme_for
from workers.quantization.static import calibrate
from workers.quantization.writing import NARROW, static

COARSE = scheme_for("x86_64", vnni=False)


class OnTokens(nn.Module):
    """A linear layer on rows, which the file holds as a MatMul and an Add."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.tokens(images.squeeze(1))).mean(1))  # type: ignore[no-any-return]


LAYERS = {
    "conv": nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)),
    "conv without bias": nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(216, 3, bias=False)
    ),
    "tokens": OnTokens(),
}


def rounded_weight(weight: Tensor) -> Tensor:
    """Seven bits, symmetric, one scale per output channel."""
    scale = weight.flatten(1).abs().amax(1).reshape(-1, *[1] * (weight.ndim - 1)) / 64
    return (weight / scale).round() * scale


@pytest.mark.parametrize("name", LAYERS)
def test_takes_the_mean_shift_of_every_channel_out_of_the_bias(name: str, run: Context) -> None:
    torch.manual_seed(0)
    net = torch.fx.symbolic_trace(LAYERS[name].eval())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape) ** 3)  # rounding hits these hard
    _, network = float_network(candidate(net), ("a", "b", "c"), run.scratch)
    ranges = calibrate(network, COARSE, run, 48).ranges
    quantized = static(network, ranges, COARSE, NARROW)(frozenset())
    first = network.layers[0]
    module = next(module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear))

    weight = rounded_weight(module.weight.detach())
    stored = dequantized_weights(quantized)[first.weight]
    np.testing.assert_allclose(stored if first.weight_axis == 0 else stored.T, weight, rtol=1e-4, atol=1e-6)

    images = easy_data().splits["calibration"][0]
    low, high = (min(ranges["input"][0], 0.0), max(ranges["input"][1], 0.0))
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    coarse = (torch.clamp((images / scale).round() + zero_point, 0, 255) - zero_point) * scale
    with torch.no_grad():
        if isinstance(module, nn.Conv2d):
            off = F.conv2d(coarse, weight, None, module.stride, module.padding)
            shift = (off - F.conv2d(images, module.weight, None, module.stride, module.padding)).mean(
                (0, 2, 3)
            )
        else:
            shift = (coarse @ weight.T - images @ module.weight.T).mean((0, 1, 2))
    got = mean_shifts(network, quantized, ranges, run, 48)
    assert set(got) == {layer.node for layer in network.layers}
    np.testing.assert_allclose(got[first.node], shift, rtol=1e-2, atol=1e-4)

    after = corrected(network, quantized, ranges, run, 48)
    before = torch.zeros(len(shift)) if module.bias is None else module.bias.detach()
    biases = bias_of(network.model, first), bias_of(after.model, first)
    np.testing.assert_allclose(np.array(biases[1]), before - shift, rtol=1e-2, atol=1e-4)
    assert (biases[0] is None) == (module.bias is None)
    onnx.checker.check_model(after.model, full_check=True)


def test_brings_the_mean_logits_back(run: Context, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = torch.fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval())
    with torch.no_grad():
        net.get_parameter("1.weight").copy_(torch.randn(3, 64) ** 5)
        run.data.splits["calibration"][0].add_(2.0)  # type: ignore[attr-defined]
    file, network = float_network(candidate(net), ("a", "b", "c"), run.scratch)
    calibrated = calibrate(network, COARSE, run, 48)
    images = easy_data().splits["calibration"][0].numpy() + 2.0
    means = []
    for state in (calibrated, calibrated.corrected(run, 48)):
        (write,) = state.writers(wide=False).values()
        onnx.save(write(frozenset()), tmp_path / "q.onnx")
        logits = [
            ort.InferenceSession(path).run(None, {"input": images})[0].mean(0)
            for path in (file, tmp_path / "q.onnx")
        ]
        means.append(np.abs(logits[1] - logits[0]).max())
    assert means[1] < 0.1 * means[0]
