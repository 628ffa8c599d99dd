"""Times of layers against the time of the whole, against what was made slow, and costs against formulas."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from tests.support.arrays import easy_data
from tests.support.staged import CLASSES, PLAN, SPEC
from workers.base import Bench, Target
from workers.deploy.one_file import compose_one_file
from workers.graph.to_onnx import to_onnx
from workers.measures.macs import count_file_macs
from workers.profiling.peaks import Peaks
from workers.profiling.profile import Profile, profile
from workers.runtimes.onnxruntime import OnnxRuntime

SIDE = 8
PEAKS = Peaks(gflops={"float32": 100.0, "int8": 400.0}, gbytes=((1 << 20, 100.0), (1 << 27, 20.0)))
BENCH = Bench(easy_data(), OnnxRuntime(), Target(host="here"), lambda _: None)


class Net(nn.Module):
    """8x8 pictures; `body` has a neighbour of each kind: a convolution, a sum, a linear layer."""

    def __init__(self, channels: int = 16, body: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.body = nn.Conv2d(channels, body, 3, padding=1)
        self.back = nn.Conv2d(body, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs).relu()
        more = self.norm(self.back(self.body(hidden).relu()))
        logits: Tensor = self.fc((hidden + more).relu().mean((2, 3)))
        return logits


def macs(channels: int, body: int) -> dict[str, int]:
    """By hand: positions times kernel times channels in and out."""
    return {
        "stem": SIDE**2 * 9 * 1 * channels,
        "body": SIDE**2 * 9 * channels * body,
        "back": SIDE**2 * channels * body,
        "fc": channels * 3,
    }


class _Given(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{"input": inputs.numpy()} for inputs, _ in BENCH.data.batches("calibration", 16)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network as it is, with a wide layer, narrow everywhere, and in int8."""
    folder = tmp_path_factory.mktemp("nets")
    found = {}
    for name, net in {"plain": Net(), "wide": Net(body=128), "narrow": Net(8, 8)}.items():
        with torch.random.fork_rng():
            found[name] = folder / f"{name}.onnx"
            onnx.save(to_onnx(net.eval(), (1, SIDE, SIDE)), found[name])
    found["int8"] = folder / "int8.onnx"
    quantize_static(
        str(found["plain"]),
        str(found["int8"]),
        _Given(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )
    return found


@pytest.fixture(scope="module")
def profiles(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Profile]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.turns.LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))
        return dict(zip(files, profile(list(files.values()), BENCH, PEAKS, seconds=0.5), strict=True))


@pytest.mark.parametrize("name", ["plain", "wide", "narrow", "int8"])
def test_operators_and_what_is_added_take_about_as_long_as_the_whole(
    files: dict[str, Path], name: str
) -> None:
    """In one of three tries: a busy neighbour takes more than these networks do, 16 samples at a time too."""
    bench = replace(BENCH, target=Target(host="here", batch=16))
    tries = (profile([files[name]], bench, PEAKS, seconds=0.5)[0] for _ in range(3))
    assert any(abs(found.rest_ms) < 0.35 * found.latency_ms and found.calls >= 25 for found in tries)


def test_many_small_operators_are_not_charged_for_being_written_down(tmp_path: Path) -> None:
    names = ["input", *map(str, range(60)), "logits"]
    nodes = [helper.make_node("Sin", [before], [after]) for before, after in pairwise(names)]
    shape: list[str | int | None] = ["N", 1, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "logits")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "chain.onnx")
    bench = replace(BENCH, target=Target(host="here", batch=48))
    (found,) = profile([tmp_path / "chain.onnx"], bench, PEAKS, seconds=0.5)
    assert len(found.layers) == 61
    # A third of what they take, if it were not taken off.
    assert abs(found.rest_ms) < 0.2 * found.latency_ms


def test_a_layer_made_wider_takes_the_largest_share_there(profiles: dict[str, Profile]) -> None:
    wide = max(profiles["wide"].layers, key=lambda layer: layer.ms)
    assert wide.name == "body"
    before = next(layer for layer in profiles["plain"].layers if layer.name == "body")
    assert wide.ms > 3 * before.ms


@pytest.mark.parametrize("name", ["plain", "wide", "narrow", "int8"])
def test_layers_have_the_names_and_the_macs_of_the_model(
    profiles: dict[str, Profile], files: dict[str, Path], name: str
) -> None:
    sizes = {"wide": (16, 128), "narrow": (8, 8)}.get(name, (16, 16))
    layers = {layer.name: layer for layer in profiles[name].layers if layer.weighted}
    assert {name: layer.macs for name, layer in layers.items()} == macs(*sizes)
    assert sum(macs(*sizes).values()) == count_file_macs(files[name])
    assert {layer.precision for layer in layers.values()} == {"int8" if name == "int8" else "float32"}


def test_what_is_fused_is_told(profiles: dict[str, Profile]) -> None:
    kinds = {layer.name: layer.kind for layer in profiles["plain"].layers}
    assert kinds["stem"] == "Conv + Relu"
    assert kinds["back"] == "Conv + Add + Relu"


def test_the_change_of_format_is_a_row_of_its_own(profiles: dict[str, Profile]) -> None:
    added = profiles["int8"].added
    assert added is not None
    assert "QuantizeLinear" in added.kind
    assert added.ms > 0


def test_roofs_follow_from_peak_and_bandwidth(profiles: dict[str, Profile]) -> None:
    body = next(layer for layer in profiles["wide"].layers if layer.name == "body")
    moved = 4 * (SIDE**2 * (16 + 128) + 9 * 16 * 128)  # activations in and out, weights
    assert body.moved_bytes == moved
    assert body.roof_ms == pytest.approx(1e3 * max(2 * body.macs / 100e9, moved / 100e9))
    small = next(layer for layer in profiles["int8"].layers if layer.name == "body")
    assert small.moved_bytes == SIDE**2 * (16 + 16) + 9 * 16 * 16
    assert small.roof_ms == pytest.approx(1e3 * max(2 * small.macs / 400e9, small.moved_bytes / 100e9))


def test_ways_through_a_file_with_exits(segment_files: list[Path], tmp_path: Path) -> None:
    """Layers behind an exit count as often as samples get there."""
    file = tmp_path / "model.onnx"
    thresholds = (0.55, 0.6)
    compose_one_file(segment_files, PLAN.model_copy(update={"thresholds": thresholds}), file, SPEC, CLASSES)
    samples = [inputs.numpy() for inputs, _ in BENCH.data.batches("validation", 1)]
    session = OnnxRuntime().open(file, threads=1)
    taken = np.array([int(session.outputs(inputs)[1][0]) for inputs in samples])
    assert 0 < (taken > 1).mean() < 1
    (found,) = profile([file], BENCH, PEAKS, seconds=1.0)
    convolutions = [layer for layer in found.layers if layer.kind.startswith("Conv")]
    assert [layer.name for layer in convolutions] == ["body.0", "body.0 (2)", "body.0 (3)"]
    assert convolutions[0].reached == 1
    assert convolutions[1].reached == pytest.approx((taken > 1).mean(), abs=0.15)
    assert convolutions[1].macs == pytest.approx(convolutions[1].reached * SIDE**2 * 9 * 4 * 6)
