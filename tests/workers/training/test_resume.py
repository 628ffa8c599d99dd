"""Killed and started again, training ends with the bits of a run that was left alone.

Run as a script, this file is the process that gets killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.arrays import context, small_net
from workers.base import Progress
from workers.training import checkpoints, loop
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings
from workers.training.state import History

ROOT = Path(__file__).parents[3]
SETTINGS = TrainingSettings(epochs=4, batch_size=16, learning_rate=0.02, augmentation="crop")


def trained(scratch: Path, settings: TrainingSettings = SETTINGS) -> tuple[dict[str, Tensor], History]:
    net = small_net()
    scratch.mkdir(exist_ok=True)
    history = loop.train(net, context(scratch), settings=settings, loss=cross_entropy(0.1))
    return net.state_dict(), history


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run_as_process(scratch: Path, weights: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, str(scratch), str(weights)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_sigkill_in_the_middle_of_an_epoch_changes_no_bit(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    with run_as_process(tmp_path, weights) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("done 2"):
            assert process.poll() is None
        process.stdout.readline()  # a batch of the third epoch
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not weights.exists()
    with run_as_process(tmp_path, weights) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert next(line for line in output.splitlines() if line.startswith("batch")).startswith("batch 3")
    expected, _ = trained(tmp_path / "undisturbed")
    assert same_bits(torch.load(weights, weights_only=True), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "one_cycle", "mixup": 0.4},
        {"optimizer": "adamw", "gradient_clip": 0},
    ],
)
def test_stopped_at_any_report_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Every batch and every end of an epoch is a report here; each is where one run ends."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", 0)
    settings = SETTINGS.model_copy(update={"epochs": 3, **changes})
    expected, history = trained(tmp_path / "undisturbed", settings)
    assert history.best_epoch > 0
    for stop in range(1 + 3 * 5):
        scratch, reports = tmp_path / str(stop), count()
        scratch.mkdir()

        def die(_: Progress, reports: Iterator[int] = reports, stop: int = stop) -> None:
            if next(reports) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            loop.train(small_net(), context(scratch, tell=die), settings=settings, loss=cross_entropy(0.1))
        weights, resumed = trained(scratch, settings)
        assert same_bits(weights, expected), f"stopped at report {stop}"
        assert resumed == history


def test_finished_training_is_not_done_again(tmp_path: Path) -> None:
    expected, history = trained(tmp_path)

    def no_loss(*_: Tensor) -> Tensor:
        raise AssertionError("trained again")

    net = small_net()
    assert loop.train(net, context(tmp_path), settings=SETTINGS, loss=no_loss) == history
    assert same_bits(net.state_dict(), expected)


def test_ended_early_stays_ended(tmp_path: Path) -> None:
    """A checkpoint of a training whose patience is over is not trained on."""
    settings = SETTINGS.model_copy(update={"epochs": 30, "patience": 3})
    expected, history = trained(tmp_path, settings)
    assert len(history.points) < 1 + 30
    again, resumed = trained(tmp_path, settings)
    assert resumed == history
    assert same_bits(again, expected)


def test_what_another_run_left_behind_is_ignored(tmp_path: Path) -> None:
    expected, _ = trained(tmp_path / "undisturbed")
    other = SETTINGS.model_copy(update={"learning_rate": 0.1})
    trained(tmp_path, other)
    (tmp_path / f"{checkpoints.FILE_NAME}.partial").write_bytes(b"half a checkpoint")
    assert same_bits(trained(tmp_path)[0], expected)


def main(scratch: Path, weights: Path) -> None:
    """Train slowly and tell of every batch, so that a kill can be aimed."""
    loop.SECONDS_BETWEEN_REPORTS = 0
    net = small_net()

    def tell(progress: Progress) -> None:
        done = (
            f"done {progress.values['epoch']}" if progress.values else progress.text.replace("Epoch", "batch")
        )
        print(done, flush=True)
        time.sleep(0.05)

    loop.train(net, context(scratch, tell=tell), settings=SETTINGS, loss=cross_entropy(0.1))
    torch.save(net.state_dict(), weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
