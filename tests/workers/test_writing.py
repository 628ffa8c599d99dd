"""A file is whole or not there."""

import os
import time
from pathlib import Path

import pytest

from workers.writing import ABANDONED_S, SUFFIX, written_whole


def test_what_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "table.json"
    with written_whole(target) as partial:
        partial.write_text("first")
        assert not target.exists()
    with pytest.raises(TypeError), written_whole(target) as partial, partial.open("w") as file:
        file.writelines(["half of the second", 2])  # type: ignore[list-item]
    assert [(file.name, file.read_text()) for file in target.parent.iterdir()] == [("table.json", "first")]


def test_two_may_write_the_same(tmp_path: Path) -> None:
    """The last to finish wins; neither sees the other's half."""
    target = tmp_path / "table.json"
    with written_whole(target) as slow:
        slow.write_text("slow")
        with written_whole(target) as fast:
            fast.write_text("fast")
        assert target.read_text() == "fast"
    assert target.read_text() == "slow"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_goes_a_day_later(tmp_path: Path) -> None:
    old, young = (tmp_path / f"{name}{SUFFIX}" for name in ("old", "young"))
    for file in (old, young):
        file.write_text("half")
    then = time.time() - ABANDONED_S - 60
    os.utime(old, (then, then))
    with written_whole(tmp_path / "table.json") as partial:
        partial.write_text("whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table.json", young.name]
