"""From a candidate to the file that is handed out, checked by running it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from pydantic import ValidationError
from torch import nn

from tests.support.arrays import ArrayData, candidate, context, easy_data, small_net
from workers import turns
from workers.base import Candidate
from workers.deploy.export import export_onnx
from workers.errors import GateFailed, SomethingMissing, StepFailed
from workers.graph.importing import open_model
from workers.measures.latency import Latency
from workers.methods.fine_tuning import FineTuning
from workers.methods.quantization import Quantization
from workers.quantization import nncf_writer, trials
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_for
from workers.quantization.static import calibrate
from workers.quantization.trials import Trials
from workers.quantization.writing import Writer

CLASSES = ("a", "b", "c")
OURS = {"engine": "onnxruntime", "keep_faster": False}


@pytest.fixture(autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither wait for a real measurement on this host nor hold one up, and time but a few calls."""
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))
    monkeypatch.setattr(trials, "LATENCY", Latency(seconds=0.01))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    run = context(tmp_path_factory.mktemp("trained"))
    return FineTuning(epochs=4, batch_size=16).apply(candidate(small_net()), run)


def logits(file: Path | None, images: torch.Tensor) -> np.ndarray:
    assert file is not None
    (found,) = ort.InferenceSession(file).run(["logits"], {"input": images.numpy()})
    return np.asarray(found)


def stored(file: Path | None) -> dict[str, int]:
    """Number of values by the type that they are stored in."""
    assert file is not None
    counts: dict[str, int] = {}
    for tensor in onnx.load(file).graph.initializer:
        kind = TensorProto.DataType.Name(tensor.data_type)
        counts[kind] = counts.get(kind, 0) + int(np.prod(tensor.dims))
    return counts


WEIGHTS = 8 * 9 + 8 * 8 * 9 + 128 * 3
KINDS = {
    "static": ("INT8", WEIGHTS),
    "dynamic": ("INT8", 128 * 3),
    "fp16": ("FLOAT16", WEIGHTS),
    "bf16": ("BFLOAT16", WEIGHTS),
}


@pytest.mark.parametrize("mode", KINDS)
def test_the_weights_are_stored_in_fewer_bits_and_the_answers_stay(
    mode: str, trained: Candidate, tmp_path: Path
) -> None:
    found = Quantization(mode=mode, **OURS).apply(trained, context(tmp_path))
    kind, count = KINDS[mode]
    assert count <= stored(found.onnx)[kind] <= count + 300
    images, labels = easy_data().splits["validation"]
    assert trained.graph is not None
    with torch.no_grad():
        expected = trained.graph(images).numpy()
    got = logits(found.onnx, images)
    signal_to_noise = 10 * np.log10(np.square(expected).mean() / np.square(got - expected).mean())
    assert signal_to_noise > {"static": 25, "dynamic": 30, "fp16": 50, "bf16": 35}[mode]
    right = [(answers.argmax(1) == labels.numpy()).mean() for answers in (expected, got)]
    assert f"{right[1]:.2%} (in float32 {right[0]:.2%})" in found.notes[-1]
    assert found.spec == trained.spec
    assert found.notes[: len(trained.notes)] == trained.notes


def test_weights_may_be_made_for_another_processor(trained: Candidate, tmp_path: Path) -> None:
    """Of 7 bits they are exact everywhere; the largest of each channel is at its end of the range."""
    found = Quantization(weight_bits=7, **OURS).apply(trained, context(tmp_path))
    assert found.onnx is not None
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(found.onnx).graph.initializer]
    integers = [weight for weight in weights if weight.dtype == np.int8 and weight.ndim > 1]
    assert integers
    assert {int(np.abs(weight.astype(int)).max()) for weight in integers} == {64}
    assert "weights use 7 bits, as was asked" in " ".join(found.notes)


def test_what_is_handed_out_keeps_the_contract(trained: Candidate, tmp_path: Path) -> None:
    found = Quantization(**OURS).apply(trained, context(tmp_path))
    export_onnx(found, tmp_path / "model.onnx", CLASSES)
    open_model(tmp_path / "model.onnx", found.spec)  # passes the checks of an upload
    session = ort.InferenceSession(tmp_path / "model.onnx")
    ((taken,), (given,)) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("input", "tensor(float)", ["N", 1, 8, 8])
    assert (given.name, given.type, given.shape) == ("logits", "tensor(float)", ["N", 3])
    content = (tmp_path / "model.onnx").read_bytes()
    for trace in (str(Path.home()), "site-packages", ".py", str(tmp_path)):
        assert trace.encode() not in content
    assert set(session.get_modelmeta().custom_metadata_map) == {"preprocessing", "classes"}
    last = next(node for node in onnx.load(tmp_path / "model.onnx").graph.node if "logits" in node.output)
    assert last.op_type == "Gemm"  # logits of 256 values would tie
    for samples in (1, 5):
        assert logits(tmp_path / "model.onnx", torch.randn(samples, 1, 8, 8)).shape == (samples, 3)


def test_an_uploaded_onnx_file_is_quantized_too(trained: Candidate, tmp_path: Path) -> None:
    export_onnx(trained, tmp_path / "upload.onnx", CLASSES)
    upload = Candidate(trained.spec, onnx=tmp_path / "upload.onnx")
    before = (tmp_path / "upload.onnx").read_bytes()
    found, again = (Quantization(**OURS).apply(model, context(tmp_path)).onnx for model in (upload, trained))
    assert stored(found)["INT8"] >= WEIGHTS
    assert (tmp_path / "upload.onnx").read_bytes() == before
    images = easy_data().splits["validation"][0]
    np.testing.assert_array_equal(logits(found, images), logits(again, images))


def test_training_with_the_rounding(trained: Candidate, tmp_path: Path) -> None:
    (tmp_path / "qat").mkdir()
    run = context(tmp_path / "qat")
    found = Quantization(mode="qat", epochs=2, batch_size=16, **OURS).apply(trained, run)
    assert stored(found.onnx)["INT8"] >= WEIGHTS
    assert "Trained with the rounding of 3 of 3 layers" in " ".join(found.notes)
    static = Quantization(**OURS).apply(trained, context(tmp_path))
    images, labels = easy_data().splits["validation"]
    assert (logits(found.onnx, images).argmax(1) == labels.numpy()).mean() > 0.9
    weights = [
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(made.onnx).graph.initializer}
        for made in (found, static)
        if made.onnx is not None
    ]
    assert not np.array_equal(weights[0]["8.weight_quantized"], weights[1]["8.weight_quantized"])


def test_the_size_that_is_left_is_told_where_the_settings_decide_it() -> None:
    """With mode dynamic the kinds of the layers decide: convolutions stay in float."""
    assert Quantization(mode="dynamic").left == {"size": None}
    assert [Quantization(mode=mode).left["size"] for mode in ("static", "qat", "fp16")] == [0.28, 0.28, 0.5]


def test_qat_says_that_an_onnx_file_cannot_be_trained(tmp_path: Path) -> None:
    assert Quantization(mode="qat").needs_graph
    assert not Quantization(mode="static").needs_graph
    with pytest.raises(StepFailed, match="ONNX"):
        Quantization(mode="qat").apply(candidate(None), context(tmp_path))


def test_keeps_the_float_model_when_int8_is_slower(
    trained: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [1.25] * len(files))
    kept = Quantization(engine="onnxruntime").apply(trained, context(tmp_path))
    assert kept.graph is trained.graph
    assert kept.onnx is None
    assert "int8 takes 1.25 times as long" in kept.notes[-1]
    half = Quantization(mode="fp16").apply(trained, context(tmp_path))
    assert half.onnx is not None  # it is half the size all the same
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [0.8, *[0.9] * (len(files) - 1)])
    assert Quantization(engine="onnxruntime").apply(trained, context(tmp_path)).onnx is not None


def test_the_fastest_way_that_is_accurate_enough_wins(
    trained: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ratios, name in (([0.5, 0.6], "layers and what joins them"), ([0.6, 0.5], "every operator")):
        monkeypatch.setattr(Trials, "_ratios", lambda _, files, ratios=ratios: ratios[: len(files)])
        found = Quantization(engine="onnxruntime", max_drop=100).apply(trained, context(tmp_path))
        assert found.notes[-1].startswith(f"Quantized {name}")
        assert "2.00 times as fast" in found.notes[-1]


def fragile() -> tuple[Candidate, ArrayData]:
    """Each class is one pixel, seen by a layer that int8 ruins: a huge weight that meets only zeros."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.get_parameter("0.weight")[:, 0, 0, 0] = torch.tensor([1.0, 1.0, 1.0, 0.0])
        for channel in range(3):
            net.get_parameter("2.weight")[channel, channel] = 1
            net.get_parameter("2.weight")[channel, 3] = 3000
            net.get_parameter("5.weight")[channel, channel * 64 + channel] = 1
    labels = torch.arange(60) % 3
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images.flatten(1)[torch.arange(60), labels] += 2
    splits: Any = dict.fromkeys(("train", "calibration", "validation", "test"), (images, labels))
    return candidate(torch.fx.symbolic_trace(net.eval())), ArrayData(splits, CLASSES)


def test_layers_go_back_to_float_until_the_drop_is_small_enough(tmp_path: Path) -> None:
    model, data = fragile()
    lost = Quantization(max_drop=100, **OURS).apply(model, context(tmp_path, data=data))
    assert "33.33% (in float32 100.00%)" in lost.notes[-1]
    found = Quantization(max_drop=1, **OURS).apply(model, context(tmp_path, data=data))
    assert "1 of 3 layers stayed in float: 2." in found.notes
    assert "100.00% (in float32 100.00%)" in found.notes[-1]
    kinds = stored(found.onnx)
    assert kinds["INT8"] >= 4 + 256 * 3
    assert kinds["FLOAT"] >= 16


@pytest.mark.parametrize(("repaired", "name"), [(0.7, "fast"), (1.3, "slow")])
def test_a_fast_way_that_loses_too_much_is_repaired_where_the_good_ones_are_slow(
    repaired: float, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = fragile()
    run = context(tmp_path, data=data)
    file, network = float_network(model, CLASSES, tmp_path)
    calibrated = calibrate(network, scheme_for("x86_64", vnni=True), run, 48)
    (fast,) = calibrated.writers(wide=False).values()
    writers: dict[str, Writer] = {"slow": lambda _: network.model, "fast": fast}
    times = {"trial0.onnx": 1.2, "trial1.onnx": 0.5, "mixed.onnx": repaired}
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [times[file.name] for file in files])
    best = Trials(model, file, network, run, 1.0).best(writers, [layer.node for layer in network.layers])
    assert best is not None
    assert best.name == name
    assert best.ratio == min(repaired, 1.2)
    assert bool(best.in_float) == (name == "fast")


@pytest.mark.parametrize("mode", ["static", "fp16"])
def test_layers_to_keep_in_float_keep_their_weights(mode: str, trained: Candidate, tmp_path: Path) -> None:
    found = Quantization(mode=mode, keep_in_float="8, 3.*, 0*", max_drop=100, **OURS)
    with pytest.raises(StepFailed, match=r"'3\.\*' is no layer.*Similar names are"):
        found.apply(trained, context(tmp_path))
    found = Quantization(mode=mode, keep_in_float="8,0", max_drop=100, **OURS)
    made = found.apply(trained, context(tmp_path))
    kind, _ = KINDS[mode]
    assert 8 * 8 * 9 <= stored(made.onnx)[kind] <= 8 * 8 * 9 + 300
    assert stored(made.onnx)["FLOAT"] >= 8 * 9 + 128 * 3
    assert "2 of 3 layers stayed in float: 0, 8." in made.notes
    with pytest.raises(StepFailed, match="every layer is to stay"):
        Quantization(mode=mode, keep_in_float="*", **OURS).apply(trained, context(tmp_path))


def test_hands_the_model_on_when_only_float_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = fragile()
    monkeypatch.setattr(Trials, "drop", lambda *_: 5.0)
    kept = Quantization(**OURS).apply(model, context(tmp_path, data=data))
    assert kept.graph is model.graph
    assert "Every layer would have to stay in float" in kept.notes[-1]


def test_nothing_is_handed_out_when_the_integers_overflow(
    trained: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = context(tmp_path)

    class Overflowing(type(run.runtime)):  # type: ignore[misc]
        def open(self, file: Path, *, threads: int, optimize: bool = True) -> Any:
            session = super().open(file, threads=threads, optimize=optimize)
            if optimize and "float" not in file.name:
                plain = session.run
                monkeypatch.setattr(session, "run", lambda inputs: -plain(inputs), raising=False)
            return session

    monkeypatch.setattr("workers.quantization.answers.OnnxRuntime", Overflowing)
    with pytest.raises(GateFailed, match="overflows"):
        Quantization(max_drop=100, **OURS).apply(trained, run)


def test_an_engine_that_is_not_installed_is_named(
    trained: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nncf_writer, "nncf_is_installed", lambda: False)
    with pytest.raises(SomethingMissing, match=r"pip install 'paredown\[openvino\]'"):
        Quantization(engine="nncf").apply(trained, context(tmp_path))


@pytest.mark.skipif(not nncf_writer.nncf_is_installed(), reason="the extra `openvino` is not installed")
def test_nncf_writes_a_file_of_the_same_kind(trained: Candidate, tmp_path: Path) -> None:
    found = Quantization(engine="nncf", keep_faster=False).apply(trained, context(tmp_path))
    assert stored(found.onnx)["INT8"] >= WEIGHTS
    assert "by NNCF" in found.notes[-1]
    assert found.onnx is not None
    assert trained.graph is not None
    integers = [t.name for t in onnx.load(found.onnx).graph.initializer if t.data_type == TensorProto.INT8]
    modules = dict(trained.graph.named_modules())
    assert sum(name.removesuffix(".weight") in modules for name in integers) == 3  # as a profile tells layers


def test_a_model_without_such_layers_is_told(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
    model = candidate(torch.fx.symbolic_trace(net.eval()))
    with pytest.raises(StepFailed, match="mode dynamic finds no Gemm or MatMul"):
        Quantization(mode="dynamic").apply(model, context(tmp_path))


def test_the_same_run_twice_gives_the_same_file(
    trained: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [0.5] * len(files))
    images, files = easy_data().splits["validation"][0], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(Quantization(**OURS).apply(trained, context(tmp_path / name)).onnx)
    np.testing.assert_array_equal(logits(files[0], images), logits(files[1], images))


@pytest.mark.parametrize(
    "setting", [{"mode": "int8"}, {"max_drop": -1}, {"samples": 4}, {"engine": "tensorrt"}, {"bits": 8}]
)
def test_refuses_settings_out_of_bounds(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Quantization(**setting)
