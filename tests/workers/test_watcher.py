"""What a worker removes from its data folder, and what it leaves."""

import os
import time
from pathlib import Path

from workers.watcher import KEPT_SECONDS, sweep


def made(data: Path, name: str, age_s: float = 0.0) -> None:
    """A file and its folder, both that old."""
    file = data / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("kept")
    then = time.time() - age_s
    for path in (file, file.parent):
        os.utime(path, (then, then))


def test_what_nobody_goes_back_to_is_removed(tmp_path: Path) -> None:
    old = KEPT_SECONDS + 60
    made(tmp_path, "measured/other-code/stage/model.onnx", old)
    made(tmp_path, "measured/this-code/unused/measured.json", old)
    made(tmp_path, "measured/this-code/used/model.onnx.17.partial", old)
    made(tmp_path, "measured/this-code/used/model.onnx")
    made(tmp_path, "predictors/ended.json", old)
    made(tmp_path, "predictors/begun.json")
    made(tmp_path, "peaks/host.17.partial", old)
    made(tmp_path, "peaks/host.json", old)
    made(tmp_path, "artifacts/ab/abc", old)
    made(tmp_path, "fetched/ab/abc", old)
    made(tmp_path, "fetched/ab/abd")
    sweep(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "measured/this-code/used/model.onnx", "predictors/begun.json", "peaks/host.json", "artifacts/ab/abc",
        "fetched/ab/abd",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "measured").iterdir()] == ["this-code"]


def test_there_may_be_nothing_yet(tmp_path: Path) -> None:
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
