"""A model with exits, quantized: the one file against its segments and against plain onnxruntime."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from tests.support.arrays import ArrayData, easy_data, uploaded
from workers.base import Split, Target
from workers.calibration import calibrate
from workers.catalog import MEASURES
from workers.deploy.one_file import set_thresholds
from workers.exits.executor import Executor, all_logits, onnx_segments
from workers.exits.scores import leaving, leaving_together, planned_scores
from workers.measures.accuracy import Accuracy
from workers.measures.latency import Latency
from workers.methods.quantization import Quantization
from workers.pipeline import Job, run
from workers.quantization import trials
from workers.quantization.staged import join
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import Stage

RECIPE = """
steps:
  - {method: early_exit, exits: [relu_1, _3], training: heads, head_epochs: 2, batch_size: 16, max_drop: 10}
  - {method: quantization, engine: onnxruntime, max_drop: 100, keep_faster: false}
"""


def noisy() -> ArrayData:
    splits: dict[Split, tuple[torch.Tensor, torch.Tensor]] = dict(easy_data(noise=2.0).splits)
    return ArrayData({**splits, "test": splits["validation"]}, ("a", "b", "c"))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.turns.LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))
        patch.setattr(trials, "LATENCY", Latency(seconds=0.01))
        patch.setattr("workers.measuring.MEASURES", {"accuracy": Accuracy, "macs": MEASURES["macs"]})
        patch.setattr(calibrate, "BATCHES", (1,))
        patch.setattr("workers.pipeline.calibrate", partial(calibrate.calibrate, seconds=0.02))
        return list(
            run(
                Job(
                    model=uploaded(), data=noisy(), dataset="d" * 64,
                    recipe=parse_recipe(RECIPE, "r"), folder=tmp_path_factory.mktemp("stages"),
                    runtime=OnnxRuntime(), target=Target(host="here"), device=torch.device("cpu"), seed=0,
                )
            ).stages
        )  # fmt: skip


def plain(file: Path, inputs: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(file)
    found = [session.run(None, {"input": inputs[at : at + batch]}) for at in range(0, len(inputs), batch)]
    logits, taken = (np.concatenate(part) for part in zip(*found, strict=True))
    return logits, taken


def test_the_file_its_segments_and_numpy_agree(stages: list[Stage], tmp_path: Path) -> None:
    """At thresholds that let some leave at each exit; batches of 8 leave when all rows are sure."""
    int8, inputs = stages[2], noisy().splits["validation"][0].numpy()
    assert int8.exits is not None
    assert len(int8.segments) == 3
    segments = onnx_segments(int8.segments, threads=1)
    expected = all_logits(segments, [inputs])
    scores = planned_scores(int8.exits, expected)
    thresholds = tuple(np.quantile(scores, 0.6, axis=0).tolist())
    file = tmp_path / "model.onnx"
    file.write_bytes(int8.file.read_bytes())
    set_thresholds(file, thresholds)
    for batch, exits in ((1, leaving(scores, thresholds)), (8, leaving_together(scores, thresholds, 8))):
        logits, taken = plain(file, inputs, batch)
        np.testing.assert_array_equal(taken, exits)
        np.testing.assert_allclose(logits, expected[np.arange(len(inputs)), exits - 1], rtol=1e-4, atol=1e-5)
    assert set(leaving(scores, thresholds)) == {1, 2, 3}
    plan = int8.exits.model_copy(update={"thresholds": thresholds})
    np.testing.assert_array_equal(Executor(segments, plan).decide(inputs)[1], leaving(scores, thresholds))


def test_the_report_is_what_plain_onnxruntime_gives(stages: list[Stage]) -> None:
    images, labels = noisy().splits["validation"]
    logits, taken = plain(stages[2].file, images.numpy(), 1)
    report = json.loads(stages[2].file.with_name("exits.json").read_text())
    assert report["accuracy"] == (logits.argmax(axis=1) == labels.numpy()).mean()
    assert report["share"] == [(taken == number).mean() for number in (1, 2, 3)]


def test_weights_are_integers_and_integers_are_handed_on(stages: list[Stage]) -> None:
    _, exits, int8 = stages
    for file in int8.segments:
        graph = onnx.load(file).graph
        large = [t for t in graph.initializer if np.prod(t.dims) > 128]  # LayerNorm has 128
        assert all(t.data_type == onnx.TensorProto.INT8 for t in large), file.name
    handed_on = [onnx.load(file).graph.input[0].type.tensor_type.elem_type for file in int8.segments]
    assert handed_on[1] == onnx.TensorProto.UINT8
    macs = [next(m.value for m in stage.measurements if m.name == "macs") for stage in (exits, int8)]
    assert macs[0] == macs[1]


def test_joined_segments_give_what_they_give_one_by_one(stages: list[Stage]) -> None:
    inputs = noisy().splits["validation"][0].numpy()
    session = ort.InferenceSession(join(stages[1].segments).SerializeToString())
    answers = np.stack(session.run(None, {"input": inputs})[::2], axis=1)
    expected = all_logits(onnx_segments(stages[1].segments, threads=1), [inputs])
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["qat", "dynamic"])
def test_modes_that_refuse_exits_say_why(mode: str) -> None:
    assert "use mode: static" in Quantization(mode=mode).refuses_exits
    assert not Quantization(mode="static").refuses_exits
