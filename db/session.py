"""One way to talk to the database, the same for SQLite and PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session

from db.models import DEFAULT_PERSON, DEFAULT_PROJECT, Person, Project

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def engine_for(url: str) -> Engine:
    """The engine of a database URL; one per process and URL."""
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _: Any) -> None:
    """Readers beside one writer; waiting instead of failing; foreign keys kept.

    The driver's own BEGIN is deferred: two read-modify-write transactions would both read first and one of
    them fail. So it is switched off and every transaction begins as a writer.
    """
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "foreign_keys=ON", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def reading(url: str) -> Iterator[Session]:
    """A consistent view that waits for no writer; nothing done in it is kept."""
    engine = engine_for(url).execution_options(reads_only=True)
    with Session(engine, expire_on_commit=False) as session:
        yield session


@contextmanager
def transaction(url: str) -> Iterator[Session]:
    """Committed when the block ends well, rolled back when it raises."""
    with Session(engine_for(url), expire_on_commit=False) as session, session.begin():
        yield session


def migrate(url: str) -> None:
    """Bring the tables to this version; safe to call at every start."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine_for(url)
    command.upgrade(config, "head")
    with transaction(url) as session:  # the one project and person there are until teams come
        if session.get(Project, DEFAULT_PROJECT) is None:
            session.add(Project(id=DEFAULT_PROJECT, name="Default project"))
            session.add(Person(id=DEFAULT_PERSON, name="You"))
