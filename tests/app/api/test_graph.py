"""Netron's page from our own address: which parts it hands out, and what it lets the browser do."""

from pathlib import Path

import httpx
import pytest
from fastapi import HTTPException

from app.api import graph
from db import runs
from db.artifacts import Artifacts
from db.session import transaction
from tests.support.experiments import fill
from tests.support.web import Web


@pytest.fixture(scope="module")
def variant(web: Web, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A point with a file."""
    fill(web.settings.database)
    file = tmp_path_factory.mktemp("file") / "model.onnx"
    file.write_bytes(b"onnx")
    with transaction(web.settings.database) as session:
        stage = next(stage for run in runs.all_of(session) for stage in run.stages)
        stage.file_sha256 = Artifacts(web.settings.artifacts).add(file)
        return stage.own.id


def test_the_page_opens_the_file_and_calls_nobody(client: httpx.Client, variant: str) -> None:
    address = f"/api/graph/variants/{variant}/"
    page = client.get(address)
    assert '<meta name="file" content="model.onnx">' in page.text
    # Netron sends statistics under a version of its own, and stops half a year after its date.
    assert page.text.count('name="version"') == 1
    assert '<meta name="version" content="0.0.0">' in page.text
    assert 'name="date"' not in page.text
    assert "consent=" in page.headers["set-cookie"]
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert client.get(f"{address}model.onnx").content == b"onnx"
    assert client.get(f"{address}view.js").headers["content-security-policy"] == policy


@pytest.mark.parametrize("name", ["server.py", "__init__.py", "none.js"])
def test_nothing_else_is_handed_out(client: httpx.Client, variant: str, name: str) -> None:
    assert client.get(f"/api/graph/variants/{variant}/{name}").status_code == 404


@pytest.mark.parametrize("name", ["../netron/view.js", "/{}/view.js", "..", "."])
def test_a_part_has_no_way_in_its_name(name: str) -> None:
    """Whatever a server in front of the route decodes."""
    folder = graph.netron_folder()
    assert folder is not None
    assert graph.get_part("variants", "any", "view.js").status_code == 200
    with pytest.raises(HTTPException, match="no such file"):
        graph.get_part("variants", "any", name.format(str(folder).lstrip("/")))


@pytest.mark.parametrize(
    "address", ["variants/none/", "models/none/", "jobs/none/", "variants/none/model.onnx"]
)
def test_what_is_not_there_is_not_found(client: httpx.Client, address: str) -> None:
    assert client.get(f"/api/graph/{address}").status_code == 404


def test_a_foreign_name_may_not_read_it(client: httpx.Client, variant: str) -> None:
    answer = client.get(f"/api/graph/variants/{variant}/", headers={"Host": "evil.example"})
    assert answer.status_code == 403


def test_without_netron_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "find_spec", lambda _: None)
    assert graph.netron_folder() is None
    with pytest.raises(HTTPException, match="pip install 'paredown\\[graph\\]'"):
        graph._netron()


def test_the_page_is_all_there() -> None:
    folder = graph.netron_folder()
    assert folder is not None
    assert (Path(folder) / "index.html").is_file()
