"""Pruned, distilled, quantized; reloaded in a fresh process, trained on, quantized again and exported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tests.support.arrays import candidate, easy_data, small_net
from workers import turns
from workers.base import Target
from workers.graph.importing import open_model
from workers.pipeline import Job, Outcome, run
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime

ROOT = Path(__file__).parents[2]
FIRST = """steps:
  - {method: structured_pruning, amount: 0.3, round_to: 2, recovery: none}
  - {method: distillation, epochs: 2, batch_size: 16}
  - {method: quantization, max_drop: 100, keep_faster: false, samples: 32, engine: onnxruntime}
"""
AGAIN = """steps:
  - {method: fine_tuning, epochs: 1, batch_size: 16}
  - {method: quantization, max_drop: 100, keep_faster: false, samples: 32, engine: onnxruntime}
"""


def carried_out(model_file: Path | None, recipe: str, folder: Path) -> Outcome:
    """From a kept stage, or from the small net."""
    turns.LOCK_FOLDER = str(folder.parent)  # no time matters here
    model = candidate(small_net())
    if model_file is not None:
        model = open_model(model_file, model.spec)
    data = easy_data()
    data.splits["test"] = data.splits["validation"]
    return run(
        Job(
            model=model,
            data=data,
            dataset="d" * 64,
            recipe=parse_recipe(recipe, "chain"),
            folder=folder,
            runtime=OnnxRuntime(),
            target=Target(host="here"),
            device=torch.device("cpu"),
            seed=0,
        )
    )


def logits(file: Path) -> np.ndarray:
    inputs = easy_data().splits["validation"][0].numpy()
    return np.asarray(ort.InferenceSession(file).run(None, {"input": inputs})[0])


def test_a_fresh_process_goes_on_with_equal_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOCK_FOLDER", turns.LOCK_FOLDER)  # put back afterwards
    first = carried_out(None, FIRST, tmp_path / "first")
    distilled, int8 = first.stages[2], first.stages[3]
    assert distilled.archive is not None
    assert int8.archive is None
    assert not np.array_equal(logits(int8.file), logits(distilled.file))

    here = carried_out(distilled.archive, AGAIN, tmp_path / "here")
    command = [
        sys.executable,
        "-m",
        "tests.workers.test_chain",
        str(distilled.archive),
        str(tmp_path / "there"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = [Path(line) for line in done.stdout.splitlines()]
    for ours, theirs in zip(here.stages, there, strict=True):
        np.testing.assert_array_equal(logits(ours.file), logits(theirs))
    np.testing.assert_allclose(logits(there[0]), logits(distilled.file), atol=1e-5)
    assert not np.array_equal(logits(there[1]), logits(there[0]))


if __name__ == "__main__":
    for stage in carried_out(Path(sys.argv[1]), AGAIN, Path(sys.argv[2])).stages:
        print(stage.file)
