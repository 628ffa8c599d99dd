"""Real processes on lock files of their own."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from workers import turns
from workers.errors import SomethingMissing

ROOT = Path(__file__).parents[2]
PRELUDE = """
import sys, time
from pathlib import Path
from workers import turns
turns.LOCK_FOLDER = sys.argv[1]
"""
TRAIN_WITHOUT_REST = """
while True:
    with turns.training_turn():
        start = time.monotonic()
        while time.monotonic() < start + 0.02: pass
        with Path(sys.argv[2]).open("a") as log: log.write(f"{start} {time.monotonic()}\\n")
"""
MEASURE_ONCE = """
with turns.measuring_turn():
    start = time.monotonic()
    time.sleep(0.2)
    with Path(sys.argv[2]).open("a") as log: log.write(f"{start} {time.monotonic()}\\n")
"""
HOLD = """
with getattr(turns, sys.argv[2])():
    print("mine", flush=True)
    time.sleep(60)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Run code in another process; whatever still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(code: str, argument: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + code, str(folder), str(argument)]
        running.append(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        )
        return running[-1]

    yield run
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it forked
        process.communicate()


def spans(log: Path) -> list[tuple[float, float]]:
    """Start and end of every turn that was written down in full."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(float(line.split()[0]), float(line.split()[1])) for line in lines if " " in line]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_trainers_neither_starve_nor_disturb_a_measurement(start: Start, folder: Path) -> None:
    """Fails without the turnstile (never gets its turn) and with a shared measuring turn (overlaps)."""
    logs = [folder / "first", folder / "second"]
    for log in logs:
        start(TRAIN_WITHOUT_REST, log)
    wait_for(lambda: all(len(spans(log)) > 3 for log in logs))
    measured = []
    for _ in range(5):
        asked = time.monotonic()
        with turns.measuring_turn():
            began = time.monotonic()
            time.sleep(0.1)
            measured.append((began, time.monotonic()))
        assert began - asked < 3
    wait_for(lambda: all(spans(log)[-1][0] > measured[-1][1] for log in logs))  # both went on afterwards
    for began, ended in measured:
        for log in logs:
            assert all(end <= began or ended <= first for first, end in spans(log))


def test_trainers_train_side_by_side(start: Start) -> None:
    """Fails when a training turn is exclusive."""
    holder = start(HOLD, "training_turn")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    with turns.training_turn():
        assert holder.poll() is None


def test_measurements_take_turns(start: Start, folder: Path) -> None:
    for process in [start(MEASURE_ONCE, folder / "log") for _ in range(3)]:
        assert process.wait(timeout=60) == 0
    (_, first_end), (second_start, second_end), (third_start, _) = sorted(spans(folder / "log"))
    assert first_end <= second_start
    assert second_end <= third_start


@pytest.mark.parametrize("turn", ["training_turn", "measuring_turn"])
def test_kill_frees_the_host(start: Start, turn: str) -> None:
    holder = start(HOLD, turn)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    waiting = start(MEASURE_ONCE, "/dev/null")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=1.5)
    os.kill(holder.pid, signal.SIGKILL)
    assert waiting.wait(timeout=30) == 0


def test_a_forked_child_does_not_keep_the_turn(start: Start, folder: Path) -> None:
    """A data loader's worker inherits the open lock file. Fails when the lock is only closed."""
    child = start(
        "import os\n"
        "with turns.measuring_turn():\n"
        "    if os.fork() == 0: time.sleep(20); os._exit(0)\n"
        "Path(sys.argv[2]).touch(); time.sleep(20)",
        folder / "left",
    )
    wait_for((folder / "left").exists)
    asked = time.monotonic()
    with turns.measuring_turn():
        assert time.monotonic() - asked < 10
    assert child.poll() is None


def test_a_turn_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), turns.measuring_turn():
        _ = 1 / 0
    with turns.measuring_turn():
        pass


def test_lock_files_serve_every_user_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with turns.measuring_turn():
            pass
    finally:
        os.umask(before)
    files = list(folder.iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o444}


def put_link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.touch()
    path.symlink_to(victim)


@pytest.mark.parametrize("put", [put_link, os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("turn", [turns.training_turn, turns.measuring_turn])
def test_what_another_user_put_there_is_refused(
    folder: Path, put: Callable[[Path], None], turn: Callable[[], AbstractContextManager[None]]
) -> None:
    put(folder / "paredown-turnstile.lock")
    with pytest.raises(SomethingMissing, match=r"paredown-turnstile\.lock: the host lock"), turn():
        pass
