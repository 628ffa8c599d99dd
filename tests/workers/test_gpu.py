"""Every kind of step trains on a GPU, and what comes out runs on the processor."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tests.support.arrays import candidate, easy_data, small_net
from workers import turns
from workers.base import Target
from workers.pipeline import Job, run
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime

TRAINING = "epochs: 4, batch_size: 16, learning_rate: 0.02"
RECOVERY = "recovery_epochs: 2"
CHAINS = {
    "l2": [f"{{method: structured_pruning, amount: 0.3, round_to: 2, {RECOVERY}}}"],
    "taylor": [f"{{method: structured_pruning, amount: 0.3, round_to: 2, importance: taylor, {RECOVERY}}}"],
    "second_derivative": [
        "{method: structured_pruning, amount: 0.3, round_to: 2, importance: second_derivative, "
        "scope: global, recovery: none}"
    ],
    "zeros": [f"{{method: unstructured_pruning, amount: 0.5, pace: cubic, {TRAINING}}}"],
    "distillation": [f"{{method: distillation, {TRAINING}}}"],
    "student": [
        "{method: distillation, student: narrower, round_to: 2, epochs: 25, batch_size: 16, "
        "learning_rate: 0.05}"
    ],
    "qat": [f"{{method: quantization, mode: qat, max_drop: 100, keep_faster: false, {TRAINING}}}"],
    "exits": [f"{{method: early_exit, exits: 1, head_epochs: 2, {TRAINING}}}"],
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CHAINS)
def test_trained_on_a_gpu_and_run_on_the_processor(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    data = easy_data()
    data.splits["test"] = data.splits["validation"]
    torch.cuda.reset_peak_memory_stats()
    outcome = run(
        Job(
            model=candidate(small_net()),
            data=data,
            dataset="d" * 64,
            recipe=parse_recipe(
                f"steps: [{', '.join([f'{{method: fine_tuning, {TRAINING}}}', *CHAINS[name]])}]", "r"
            ),
            folder=tmp_path / "stages",
            runtime=OnnxRuntime(),
            target=Target(host="here"),
            device=torch.device("cuda"),
            seed=0,
        )
    )

    assert torch.cuda.max_memory_allocated() > 0
    inputs = data.splits["test"][0].numpy()
    session = ort.InferenceSession(outcome.stages[-1].file, providers=["CPUExecutionProvider"])
    logits = np.concatenate([np.asarray(session.run(None, {"input": one[None]})[0]) for one in inputs])
    assert (logits.argmax(1) == data.labels("test")).mean() > 0.5  # chance: a third
