"""A page at a time, on a database as it looks after days of work, without a server or a worker."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import app.session
from app import queueing
from db import variants
from db.models import Stage
from db.session import engine_for, migrate
from tests.support import exits, experiments

VIEWS = Path(app.session.__file__).parent / "views"
Open = Callable[..., AppTest]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The database of an empty project, which the pages use too."""
    monkeypatch.setenv("PAREDOWN_DATA", str(tmp_path))
    app.session.settings.cache_clear()
    address = app.session.settings().database
    migrate(address)
    yield address
    app.session.settings.cache_clear()


@pytest.fixture
def experiment(url: str) -> str:
    return experiments.fill(url)


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of jobs that workers were told of."""
    told: list[str] = []
    monkeypatch.setattr(queueing, "wake", lambda job: told.append(job.id))
    return told


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str] | None]]:
    """Pages that a page led to; there is no navigation around it here."""
    led: list[tuple[str, dict[str, str] | None]] = []
    monkeypatch.setattr(st, "switch_page", lambda page, query_params=None: led.append((page, query_params)))
    return led


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, url: str, visited: object) -> Open:  # noqa: ARG001
    monkeypatch.setattr(st, "page_link", lambda *_, label="", **__: st.caption(label))

    def opened(name: str, **query: str) -> AppTest:
        page = AppTest.from_file(str(VIEWS / f"{name}.py"), default_timeout=20)
        page.query_params.update(query)
        page.run()
        assert not page.exception
        return page

    return opened


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With early exits; copy it before writing."""
    return exits.project(tmp_path_factory)


@pytest.fixture
def stage(project: Path, tmp_path: Path, url: str) -> Stage:  # noqa: ARG001
    """The stage with exits, in a copy of the project which the pages use."""
    (tmp_path / "paredown.db").unlink()
    for name in ("paredown.db-wal", "paredown.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    engine_for(app.session.settings().database).dispose()
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    with app.session.reading() as opened:
        return variants.with_exits(opened)[0][1]
