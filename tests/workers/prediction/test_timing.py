"""Layers get the time that is theirs: against networks in which one layer does nearly all the work."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from tests.workers.prediction.tables import TARGET
from tests.workers.pruning.networks import SPEC, chain, graph_of
from workers.base import Candidate, ModelSpec, Place, Progress
from workers.deploy.export import export_onnx
from workers.prediction import timing
from workers.prediction.timing import Timing, layer_times_us
from workers.profiling.recording import record
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_of_host
from workers.quantization.static import float_tensors
from workers.quantization.writing import NARROW, static
from workers.runtimes.onnxruntime import OnnxRuntime

SIDE = 32
LARGE = SPEC.model_copy(
    update={"preprocessing": SPEC.preprocessing.model_copy(update={"height": SIDE, "width": SIDE})}
)


def one_heavy() -> nn.Sequential:
    """Layers 0, 2, 4 and 8; nearly all multiply-accumulates are in layer 4."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 64, 1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 3),
    )


def linear() -> nn.Sequential:
    """Layers 1, 3 and 5; the runtime makes one operator of 3 and its ReLU, and gives it a name of its own."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 1500),
        nn.ReLU(),
        nn.Linear(1500, 1500),
        nn.ReLU(),
        nn.Linear(1500, 3),
    )


def exported(net: nn.Module, spec: ModelSpec, file: Path) -> Path:
    export_onnx(Candidate(spec, graph_of(net)), file, ())
    return file


def in_int8(file: Path, spec: ModelSpec) -> Path:
    written = file.with_suffix(".int8.onnx")
    _, network = float_network(Candidate(spec, onnx=file), (), file.parent / "float")
    ranges = dict.fromkeys(float_tensors(network), (-3.0, 3.0))
    onnx.save(static(network, ranges, scheme_of_host(), NARROW)(frozenset()), written)
    return written


def shares(file: Path, spec: ModelSpec, layers: Sequence[str]) -> dict[str, float]:
    samples = [np.zeros((1, *spec.preprocessing.shape), np.float32)]
    (recording,) = record([file], samples, seconds=0.05)
    times = layer_times_us(file, recording, layers)
    return {layer: time / sum(times.values()) for layer, time in times.items()}


def test_time_goes_to_the_layer_that_takes_it(tmp_path: Path) -> None:
    file = exported(one_heavy(), LARGE, tmp_path / "net.onnx")
    for one in (file, in_int8(file, LARGE)):
        found = shares(one, LARGE, ("0", "2", "4", "8"))
        assert set(found) == {"0", "2", "4", "8"}, one.name
        assert found["4"] > 0.5, one.name


def test_time_of_fused_layers_is_theirs(tmp_path: Path) -> None:
    found = shares(exported(linear(), SPEC, tmp_path / "net.onnx"), SPEC, ("1", "3", "5"))
    assert found["3"] > 0.6


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.02)
    monkeypatch.setattr(timing, "PROFILE_SECONDS", 0.02)
    first = exported(chain(), SPEC, tmp_path / "first.onnx")
    second = tmp_path / "second.onnx"
    second.write_bytes(first.read_bytes())
    return [first, second]


class Broken(Exception):
    pass


def test_what_is_timed_is_kept_file_by_file(tmp_path: Path, files: list[Path]) -> None:
    heard: list[str] = []

    def breaks_off(progress: Progress) -> None:
        heard.append(progress.text)
        if len(heard) == 3:  # the ratios and the first file are through
            raise Broken

    place = Place(OnnxRuntime(), TARGET)
    kept = tmp_path / "times.json"
    kept.write_text('{"first.onnx": {"rat')  # left by a process that was killed in another age
    timed = Timing(place, SPEC, ("0", "3", "7"), breaks_off, kept)
    with pytest.raises(Broken):
        timed.of(files)
    (known,) = json.loads(kept.read_text()).items()
    assert known[0] == "first.onnx"
    assert known[1]["ratio"] == 1
    assert list(tmp_path.glob("*.partial*")) == []
    took = dataclasses.replace(timed, tell=lambda _: None).of(files)
    assert took[files[0]] == known[1], "not timed again"
    for one in took.values():
        assert one["ratio"] == pytest.approx(1, abs=0.5)  # the same file twice
        assert sum(one["layers"].values()) == pytest.approx(one["ratio"])
