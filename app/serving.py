"""`paredown up`, `worker` and `web`: the long-lived processes."""

import logging
import os
import re
import sys
from collections.abc import Sequence

from app import terminal
from app.supervisor import WEB, Supervisor
from db.session import migrate
from db.settings import Settings
from db.workers import target_queue
from workers.errors import ParedownError
from workers.queue import serve

#: A name that is part of a queue's, a file's and a link's.
TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def up() -> None:
    """Everything, until Ctrl-C."""
    with Supervisor(Settings()) as supervisor:
        terminal.out.print(
            f"Paredown: {supervisor.address}  (Ctrl-C ends it; logs: {supervisor.settings.logs})"
        )
        supervisor.run()


def worker(queues: Sequence[str], target: str | None) -> None:
    """One worker; without queues it takes what its device can do, or only measures where it is a target."""
    settings = Settings()
    if target is not None and not TARGET.fullmatch(target):
        raise ParedownError(
            f"--target {target}", "is no name for a machine.",
            "Take up to 40 letters, digits, dots, dashes or underscores, as in pi5.",
        )  # fmt: skip
    if settings.web_url and (queues or target is None):
        raise ParedownError(
            "PAREDOWN_WEB_URL", "is for workers that only measure: what a step makes stays in their folder.",
            "Start it with --target NAME and no --queues, or share the data folder and unset the variable.",
        )  # fmt: skip
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for noisy in ("alembic", "celery", "kombu"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if target is not None:
        queues = [*queues, target_queue(target)]
    elif not queues:
        queues = ["cpu"] if settings.device == "cpu" else ["gpu", "cpu"]
    settings.data.mkdir(parents=True, exist_ok=True)
    migrate(settings.database)
    serve(settings, queues)


def queue_names(text: str | None) -> list[str]:
    """What --queues says; empty when it says nothing. Raises ParedownError."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in ("cpu", "gpu"):
            raise ParedownError(f"--queues {text}", f"{name!r} is no queue.", "Queues are cpu and gpu.")
    return names


def web() -> None:
    """The web process alone, e.g. in a container."""
    os.execv(WEB[0], WEB)
