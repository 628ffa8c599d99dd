"""The supervisor as a person meets it: one per folder, the next free port, gone after Ctrl-C."""

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from app.supervisor import Child, Supervisor, free_port
from db.settings import Settings
from tests.faults.plant import ENDS_SECONDS, shared, wait_for
from tests.support.browser import visiting
from tests.support.web import EVERYTHING, serving
from workers.errors import ParedownError


def test_a_second_one_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = Supervisor(Settings(data=tmp_path))
    with pytest.raises(ParedownError, match="is in use"):
        Supervisor(Settings(data=tmp_path))
    first.__exit__(None, None, None)


def test_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port


def child(tmp_path: Path, command: Sequence[str]) -> Child:
    return Child("child", command, tmp_path / "child.log")


def test_what_dies_is_started_again_after_growing_pauses(tmp_path: Path) -> None:
    dying = child(tmp_path, [sys.executable, "-c", "print('here')"])
    pauses: list[float] = []

    def four_starts() -> bool:
        dying.tend()
        pauses.append(dying.pause)
        return dying.restarts >= 3

    wait_for(four_starts, "three restarts")
    assert sorted(set(pauses)) == [0.0, 0.25, 0.75, 1.75]
    assert dying.process is not None
    dying.process.wait()
    assert dying.log.read_text().count("here") == 4


def test_ctrl_c_ends_everything_while_a_page_is_open(tmp_path: Path) -> None:
    """Broker, web, worker and its process for jobs."""
    with serving(tmp_path, EVERYTHING, broker_url="") as web, visiting(web.address) as page:
        page.get_by_role("link", name="Trade-offs").wait_for()
        supervisor = psutil.Process(web.pid)
        wait_for(lambda: len(supervisor.children(recursive=True)) == 4, "all four")
        everything = [supervisor, *supervisor.children(recursive=True)]
        supervisor.send_signal(signal.SIGINT)
        assert psutil.wait_procs(everything, timeout=shared(ENDS_SECONDS))[1] == []
    assert not web.settings.broker_socket.parent.exists()


def starts(code: str) -> str:
    """Python code that starts `code` in a tied process and waits."""
    return (
        "import subprocess, sys, time; from workers.lifeline import tied; "
        f"subprocess.Popen(tied([sys.executable, '-c', {code!r}]), start_new_session=True); time.sleep(600)"
    )


def test_a_process_and_its_children_die_with_a_killed_parent() -> None:
    """supervisor -> worker -> job, as a chain of three plain processes."""
    command = [sys.executable, "-c", starts(starts("import time; time.sleep(600)"))]
    parent = psutil.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: len(parent.children(recursive=True)) == 2, "a chain of three processes")
    below = parent.children(recursive=True)
    wait_for(lambda: all("-c" in process.cmdline()[1] for process in below), "all tied")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert psutil.wait_procs(below, timeout=10)[1] == []
