"""Every test of this folder runs on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.session import engine_for, migrate
from tests.support.postgres import fresh_database
from tests.support.postgres import postgres as postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database."""
    if request.param == "sqlite":
        fresh = f"sqlite:///{tmp_path}/test.db"
    else:
        fresh = fresh_database(request.getfixturevalue("postgres"))
    migrate(fresh)
    yield fresh
    engine_for(fresh).dispose()
