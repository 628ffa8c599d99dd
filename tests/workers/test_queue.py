"""Wake-up calls through a real broker; without one nothing blocks and nothing is raised."""

import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.broker import broker_command
from db.settings import Settings
from workers.queue import wake

PATIENCE_SECONDS = 60
#: Stands for a worker: says on its output when it is called.
LISTENER = """
import sys, threading
from workers.queue import _listen
woken = threading.Event()
threading.Thread(target=_listen, args=(sys.argv[1], woken), daemon=True).start()
while True:
    woken.wait(); woken.clear(); print("woken", flush=True)
"""


@pytest.fixture
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder))
        yield settings
        shutil.rmtree(settings.broker_socket.parent, ignore_errors=True)


@contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def listener(broker: str) -> list[str]:
    return [sys.executable, "-c", LISTENER, broker]


def call_until_heard(process: "subprocess.Popen[str]", settings: Settings) -> None:
    """It may take some calls until the other side has subscribed."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            wake("some job", broker=settings.broker)
            if selector.select(0.5):
                assert process.stdout.readline() == "woken\n"
                return
    pytest.fail("the call was not heard")


def test_every_worker_hears_and_listens_again_when_the_broker_comes_back(
    settings: Settings,
) -> None:
    with (
        running(listener(settings.broker)) as one,
        running(listener(settings.broker)) as two,
    ):
        for _ in range(2):  # they start before the broker, and outlive it
            with running(broker_command(settings)):
                call_until_heard(one, settings)
                call_until_heard(two, settings)
        assert settings.broker_socket.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_broker_the_call_is_given_up_at_once(settings: Settings) -> None:
    wake("some job", broker=settings.broker)
