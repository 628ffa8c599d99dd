"""`paredown doctor` as a command: well on this machine, and a sentence with a way out where it is not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from db import workers
from db.session import migrate, transaction
from db.settings import Settings


def doctor(folder: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", *options],
        env=os.environ | {"PAREDOWN_DATA": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_that_has_everything(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Broker" in done.stdout


def test_what_is_not_reached_is_named_with_its_setting(tmp_path: Path) -> None:
    nowhere = {
        "PAREDOWN_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2",
        "PAREDOWN_BROKER_URL": "redis://127.0.0.1:1/0",
        "PAREDOWN_WEB_URL": "http://127.0.0.1:1",
    }
    done = doctor(tmp_path, **nowhere)
    assert done.returncode == 1
    assert "correct PAREDOWN_DATABASE_URL" in done.stdout
    assert "PAREDOWN_BROKER_URL is not reached" in done.stdout
    assert "PAREDOWN_WEB_URL is not reached" in done.stdout


def test_a_container_without_a_worker_is_not_well(tmp_path: Path) -> None:
    assert doctor(tmp_path, "--worker").returncode == 1


def test_a_container_asks_for_its_own_worker(tmp_path: Path) -> None:
    """Another host's is not it, even if that host's name begins like this one's."""
    host, database = socket.gethostname(), Settings(data=tmp_path).database
    migrate(database)

    def seen(name: str) -> None:
        with transaction(database) as session:
            workers.seen(session, name, queues=["gpu", "cpu"], device="cpu")

    seen("elsewhere-gpu+cpu-1")
    seen(f"{host}-cpu-gpu+cpu-1")
    assert doctor(tmp_path, "--worker").returncode == 1
    seen(f"{host}-gpu+cpu-2")
    assert doctor(tmp_path, "--worker").returncode == 0
