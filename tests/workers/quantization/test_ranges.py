"""Against numpy on all values at once, and against torch for what the layers make of a tensor."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.arrays import ArrayData, candidate, context, easy_data, small_net
from workers.base import Context
from workers.quantization import ranges
from workers.quantization.network import Network
from workers.quantization.probes import affine, calibration_batches
from workers.quantization.ranges import BINS, candidates, chosen, extremes, histograms

SAMPLES = 48


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 and back, written out."""
    scale = (max(high, 0) - min(low, 0)) / 255
    zero_point = round(-min(low, 0) / scale)
    return np.asarray((np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale)


def relu_outputs(images: Tensor) -> Tensor:
    net = small_net()
    with torch.no_grad():
        for index in range(3):
            images = net.get_submodule(str(index))(images)
    return images


@pytest.fixture
def relu(exported: tuple[Path, Network]) -> str:
    (node,) = [node for node in exported[1].model.graph.node if node.op_type == "Relu"]
    return str(node.output[0])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_and_the_ends_are_reached(low: float, high: float) -> None:
    scale, zero_point = affine(low, high)
    assert 0 <= zero_point <= 255
    assert scale * (0 - zero_point) <= min(low, 0) + scale / 2
    assert scale * (255 - zero_point) >= max(high, 0) - scale / 2


def test_extremes_are_those_of_torch(exported: tuple[Path, Network], relu: str, run: Context) -> None:
    found = extremes(exported[1], ["input", relu], run, SAMPLES)
    images = easy_data().splits["calibration"][0]
    np.testing.assert_allclose(
        np.array(found["input"]), [float(images.min()), float(images.max())], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.array(found[relu]), [0, float(relu_outputs(images).max())], rtol=1e-5, atol=1e-6
    )


def test_histograms_count_every_value(exported: tuple[Path, Network], relu: str, run: Context) -> None:
    values = relu_outputs(easy_data().splits["calibration"][0]).numpy()
    top = float(values.max())
    counts = histograms(exported[1], {relu: (0.0, top)}, run, SAMPLES)[relu]
    expected, _ = np.histogram(values, BINS, (0.0, top))
    assert counts.sum() == values.size
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() < 50  # float32 puts a few into the next bin


def test_a_large_tensor_is_drawn_from(
    exported: tuple[Path, Network], relu: str, run: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "DRAWN", 1000)
    monkeypatch.setattr(ranges, "BATCH_BYTES", 1)  # one sample at a time, 512 values each
    assert histograms(exported[1], {relu: (0.0, 9.0)}, run, SAMPLES)[relu].sum() == SAMPLES * 512
    monkeypatch.setattr(ranges, "DRAWN", 100)
    assert histograms(exported[1], {relu: (0.0, 9.0)}, run, SAMPLES)[relu].sum() == SAMPLES * 100


def test_candidates_are_what_their_names_say() -> None:
    values = np.random.default_rng(0).standard_t(4, 200_000).astype(np.float32)
    limits = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, BINS, limits)
    found = candidates(counts, limits)
    bin_width = edges[1] - edges[0]
    assert found["min-max"] == limits
    for rule, share in (("99.99 %", 0.9999), ("99.9 %", 0.999)):
        np.testing.assert_allclose(
            np.array(found[rule]), np.quantile(values, [1 - share, share]), atol=1.5 * bin_width
        )
    errors = {
        rule: float(((values - rounded(values, *limits)) ** 2).mean()) for rule, limits in found.items()
    }
    assert errors["least squares"] < 0.8 * errors["min-max"]
    shrunk = [tuple(np.array(limits) * share) for share in ranges.SHRINKS]
    best = min(float(((values - rounded(values, *limits)) ** 2).mean()) for limits in shrunk)
    assert errors["least squares"] <= 1.05 * best


def test_constant_activations_have_a_range() -> None:
    assert candidates(np.eye(1, BINS, dtype=np.int64)[0], (0.0, 0.0)) == {"min-max": (0.0, 0.0)}


def test_the_range_with_the_least_noise_behind_it_wins(
    exported: tuple[Path, Network], relu: str, run: Context
) -> None:
    """The noise in the output of the second convolution, computed with torch, ranks them the same way."""
    images = easy_data().splits["calibration"][0]
    before, conv = relu_outputs(images), small_net().get_submodule("3")
    top = float(before.max())
    tried = {"wide": (0.0, 20 * top), "fit": (0.0, 0.9 * top), "narrow": (0.0, 0.1 * top)}
    with torch.no_grad():
        noise = {
            rule: float(
                (conv(torch.from_numpy(rounded(before.numpy(), *limits)).float()) - conv(before))
                .square()
                .sum()
            )
            for rule, limits in tried.items()
        }
    assert sorted(noise, key=noise.__getitem__)[0] == "fit"
    found, rules = chosen(exported[1], {relu: tried}, run)
    assert found == {relu: tried["fit"]}
    assert rules == {"fit": 1}
    for pair in (("wide", "narrow"), ("fit", "wide")):
        found, _ = chosen(exported[1], {relu: {rule: tried[rule] for rule in pair}}, run)
        assert found[relu] == tried[min(pair, key=noise.__getitem__)]


def test_calibration_samples_are_drawn_once_each(tmp_path: Path) -> None:
    images = torch.arange(10.0).reshape(10, 1, 1, 1)
    data = ArrayData({"calibration": (images, torch.zeros(10, dtype=torch.int64))}, ("a", "b"))
    run = context(tmp_path, data=data)
    taken = np.concatenate(list(calibration_batches(run, 7, 3))).ravel()
    assert len(set(taken)) == 7
    other = np.concatenate(list(calibration_batches(dataclasses.replace(run, seed=1), 7, 3))).ravel()
    assert not np.array_equal(taken, other)
    assert candidate(None).graph is None
