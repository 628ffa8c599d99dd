"""A tiny model, a tiny dataset, and `paredown` as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from workers.graph.resnets import RESNETS

#: paredown(*arguments) -> the finished process.
Paredown = Callable[..., "subprocess.CompletedProcess[str]"]

RECIPE = """\
name: Tiny – ½
steps:
- method: structured_pruning
  amount: 0.3
  round_to: 4
  recovery: none
- method: fine_tuning
  epochs: 2
  batch_size: 32
"""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "app.cli", *map(str, arguments)]


def environment(data: Path) -> dict[str, str]:
    return {**os.environ, "PAREDOWN_DATA": str(data), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def paredown(tmp_path: Path) -> Paredown:
    """In tmp_path, as a process."""

    def call(*arguments: str | Path, data: Path = tmp_path / "data") -> object:
        return subprocess.run(
            command(*arguments), env=environment(data), cwd=tmp_path, capture_output=True, text=True
        )

    return call  # type: ignore[return-value]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Paredown:
    """In tmp_path, in this process: for what ends early, torch need not be imported again."""
    from app.cli import main

    def call(*arguments: str | Path, **more: str) -> "subprocess.CompletedProcess[str]":
        for name, value in {"PAREDOWN_DATA": str(tmp_path / "data"), **more}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["paredown", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return subprocess.CompletedProcess([], code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights.pt (cifar_resnet8 of width 8, three classes), pictures.npz and recipe.yaml."""
    folder = tmp_path_factory.mktemp("inputs")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = RESNETS["cifar_resnet8"](num_classes=3, in_channels=1, width=8)
    torch.save(net.state_dict(), folder / "weights.pt")
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    patterns = generator.integers(0, 200, (3, 8, 8))
    images = patterns[labels] + generator.integers(0, 56, (300, 8, 8))
    split = np.array(["train", "validation", "test", "test", "calibration"])[np.arange(300) // 3 % 5]
    np.savez(
        folder / "pictures.npz",
        images=images.astype(np.uint8),
        labels=labels,
        classes=np.array(["cat", "dog", "süß"]),
        split=split,
    )
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "baseline.yaml").write_text("steps: []\n")
    return folder


@pytest.fixture(scope="session")
def sources(inputs: Path) -> list[str | Path]:
    """The options that name model and data."""
    model: list[str | Path] = ["--model", inputs / "weights.pt", "--arch", "cifar_resnet8"]
    return [*model, "--dataset", inputs / "pictures.npz"]


@pytest.fixture(scope="session")
def done(inputs: Path, sources: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes did the same at once: folder/one, folder/two and the stages they shared.

    All test processes share this one folder.
    """
    folder = (
        tmp_path_factory.getbasetemp().parent
        / f"done-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    )
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            _do(folder, command("run", inputs / "recipe.yaml", *sources))
    return folder


def _do(folder: Path, arguments: list[str]) -> None:
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "mine.txt").write_text("keep me")
    processes = {
        name: subprocess.Popen(
            [*arguments, "--out", str(folder / name)],
            env=environment(folder / "data"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    }
    for name, process in processes.items():
        output, errors = process.communicate()
        (folder / f"{name}.stdout").write_text(output)
        (folder / f"{name}.stderr").write_text(errors)
        assert process.returncode == 0, errors
