"""A child that misbehaves harms nobody: the parent gets a sentence, in time, and nothing is left running."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.errors import GateFailed, ModelRefused, SomethingMissing
from workers.graph import sandbox

ROOT = Path(__file__).parents[3]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a role of `children` in place of the real child; Python finds the tests where it finds the code."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module({command[-1]!r}, "
        return popen([sys.executable, "-I", "-c", f"{code} run_name='__main__')"], **options)

    monkeypatch.setattr(subprocess, "Popen", start)

    def call(
        role: str, *, seconds: float = 10, told: Callable[[str], None] = lambda _: None, **more: Any
    ) -> Any:
        request = {"name": "m.pt2", "role": role, **more}
        return sandbox.run_restricted("tests.workers.graph.children", request, seconds=seconds, told=told)

    return call


@pytest.mark.parametrize("role", ["flood", "flood_with_steps"])
def test_a_flood_ends(role: str, run: Run) -> None:
    start = time.monotonic()
    with pytest.raises(ModelRefused, match="wrote more than 1,048,576 bytes"):
        run(role)
    assert time.monotonic() - start < 8


def test_a_flood_of_complaints_ends(run: Run) -> None:
    with pytest.raises(ModelRefused, match="ended its own check early"):
        run("flood_errors", file_bytes=1 << 20)


@pytest.mark.parametrize(
    "words",
    [
        "garbage",
        "[1, 2]",
        "{}",
        "null",
        '{"reply": 3}',
        '{"error": ["ModelRefused"]}',
        '{"error": 7}',
        "[" * 100_000,
    ],
)
def test_an_answer_that_makes_no_sense(words: str, run: Run) -> None:
    with pytest.raises(ModelRefused, match="made its own check fail"):
        run("say", words=words)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("ModelRefused", ModelRefused),
        ("SomethingMissing", SomethingMissing),
        ("GateFailed", GateFailed),
        ("SystemExit", ModelRefused),
    ],
)
def test_errors_arrive_as_what_they_are(kind: str, raised: type[Exception], run: Run) -> None:
    with pytest.raises(raised) as caught:
        run("say", words=json.dumps({"error": [kind, "where", "what", "fix"]}))
    assert (caught.type, str(caught.value)) == (raised, "where: what fix")


def test_a_child_that_hangs(run: Run) -> None:
    start, steps = time.monotonic(), list[str]()
    with pytest.raises(ModelRefused, match="was not checked within 2 s"):
        run("hang", seconds=2, told=steps.append)
    assert time.monotonic() - start < 4
    assert steps == ["reading"]


def test_a_child_that_is_killed(run: Run) -> None:
    with pytest.raises(ModelRefused, match="exit code -11"):
        run("be_killed")


def test_a_model_that_runs_too_long(run: Run) -> None:
    """The kernel ends it, so the interpreter need not be free."""
    with pytest.raises(ModelRefused, match="was not checked within 2 s"):
        run("run_too_long")


def test_last_words(run: Run) -> None:
    with pytest.raises(ModelRefused, match="exit code 3: the last line"):
        run("complain")


@pytest.mark.parametrize("reply", [True, False])
def test_grandchildren_end_too(reply: bool, run: Run) -> None:
    pids: list[str] = []
    start = time.monotonic()
    if reply:
        assert run("leave_grandchildren", reply=True, told=pids.append) == {}
    else:
        with pytest.raises(ModelRefused):
            run("leave_grandchildren", reply=False, seconds=3, told=pids.append)
    assert time.monotonic() - start < 8
    assert len(pids) == 2
    deadline = time.monotonic() + 3
    while any(_runs(int(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if _runs(int(pid))] == []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_stays_when_the_listener_gives_up(run: Run) -> None:
    """A cancelled job raises from the callback."""
    pids: list[int] = []

    def cancel(_: str) -> None:
        pids.extend(child.pid for child in psutil.Process().children())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("hang", told=cancel)
    assert pids
    assert not any(_runs(pid) for pid in pids)


def test_the_restrictions_hold(
    run: Run, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        reply = run("describe", memory_bytes=256 << 20, file_bytes=1 << 20, port=server.getsockname()[1])
    # LC_CTYPE is Python's own doing.
    assert {*reply["environment"]} - {"LC_CTYPE"} == {"PATH", "LC_ALL", "HOME", "TMPDIR"}
    assert reply["environment"]["HOME"] == reply["folder"]
    assert not Path(reply["folder"]).exists()
    assert reply["limits"] == [[0, 0], [1 << 20, 1 << 20], [256, 256]]
    assert reply["files"] == "limited"
    if sys.platform == "linux":
        assert reply["memory"] == "limited"
    record_property("network", "off" if reply["offline"] else "this system does not let a process give it up")
    assert reply["connected"] == (not reply["offline"])


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="may not be allowed without root")
def test_root_on_linux_is_always_offline(run: Run) -> None:
    assert run("describe", memory_bytes=256 << 20, file_bytes=1 << 20, port=9)["offline"]
