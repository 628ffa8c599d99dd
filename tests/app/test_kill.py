"""`paredown run`, killed in the middle of fine-tuning and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.app.conftest import environment

# The real command; it also says when an epoch begins and gives the killer time to aim.
SLOWED = """
import sys, time
from app.cli import main
from workers.training.loop import _Loop
epoch = _Loop._epoch
def slow_epoch(self, number):
    print("epoch", number, flush=True)
    time.sleep(0.5)
    return epoch(self, number)
_Loop._epoch = slow_epoch
main()
"""


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """A shell's background job ignores Ctrl-C, and its children do so too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(folder: Path, arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SLOWED, "run", *arguments, "--out", str(folder / "out")],
        env=environment(folder / "data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def epochs(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("epoch")]


def test_goes_on_from_the_last_epoch_with_the_same_bits(sources: list[str | Path], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{method: fine_tuning, epochs: 4, batch_size: 32}]")
    arguments = [str(recipe), *map(str, sources)]
    whole, killed = (start(tmp_path / name, arguments) for name in ("whole", "killed"))
    assert killed.stdout is not None
    while not killed.stdout.readline().startswith("epoch 3"):
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    stages = tmp_path / "killed" / "data" / "stages"
    (scratch,) = stages.glob("*.scratch")
    assert (scratch / "training.pt").exists()
    assert not (tmp_path / "killed" / "out").exists()
    again = start(tmp_path / "killed", arguments)
    outputs = [process.communicate()[0] for process in (again, whole)]
    assert (again.returncode, whole.returncode) == (0, 0)
    assert epochs(outputs[0]) == ["epoch 3", "epoch 4"]
    assert epochs(outputs[1]) == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    for name in ("model.onnx", "model.pt2"):
        one, other = ((tmp_path / run / "out" / name).read_bytes() for run in ("killed", "whole"))
        assert one == other
    assert {path.suffix for path in stages.iterdir()} == {""}


def test_ctrl_c_ends_with_130_and_without_a_traceback(
    inputs: Path, sources: list[str | Path], tmp_path: Path
) -> None:
    process = start(tmp_path, [str(inputs / "recipe.yaml"), *map(str, sources)])
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1")
    os.kill(process.pid, signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate()
    assert time.monotonic() - started < 10
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "data" / "stages").glob("*.partial"))
