"""`paredown up`, `worker` and `web`: the long-lived processes."""

import logging
import os
import sys
from collections.abc import Sequence

from app import terminal
from app.supervisor import WEB, Supervisor
from db.session import migrate
from db.settings import Settings
from workers.errors import ParedownError
from workers.queue import serve


def up() -> None:
    """Everything, until Ctrl-C."""
    with Supervisor(Settings()) as supervisor:
        terminal.out.print(
            f"Paredown: {supervisor.address}  (Ctrl-C ends it; logs: {supervisor.settings.logs})"
        )
        supervisor.run()


def worker(queues: Sequence[str], target: str | None) -> None:
    """One worker; without queues it takes what its device can do."""
    settings = Settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for noisy in ("alembic", "celery", "kombu"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if not queues:
        queues = ["cpu"] if settings.device == "cpu" else ["gpu", "cpu"]
    if target is not None:
        queues = [*queues, f"target.{target}"]
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
