"""Downloads, states and health through the routes themselves."""

import hashlib
import time
from pathlib import Path

import httpx
import pytest

from app.api.downloads import file_name
from app.api.state import FRESH_SECONDS
from db import jobs, models_, runs
from db.artifacts import Artifacts
from db.session import transaction
from tests.support.experiments import fill
from tests.support.web import Web


@pytest.fixture(scope="module")
def variant(web: Web) -> str:
    """The id of a point whose file is not in the store."""
    fill(web.settings.database)
    with transaction(web.settings.database) as session:
        stages = (run.stages for run in runs.all_of(session))
        return next(stage.variants[0].id for of_run in stages for stage in of_run)


def test_a_file_comes_whole_under_its_name(
    client: httpx.Client, web: Web, variant: str, tmp_path: Path
) -> None:
    content = b"onnx" * 100_000  # a middleware would love to compress it
    (tmp_path / "model.onnx").write_bytes(content)
    with transaction(web.settings.database) as session:
        run = next(
            run for run in runs.all_of(session) for stage in run.stages if stage.variants[0].id == variant
        )
        stage = next(stage for stage in run.stages if stage.variants[0].id == variant)
        before, name = stage.file_sha256, file_name(run.name, stage.index)
        stage.file_sha256 = Artifacts(web.settings.artifacts).add(tmp_path / "model.onnx")
    answer = client.get(f"/api/downloads/variants/{variant}", headers={"Accept-Encoding": "gzip"})
    assert answer.content == content
    assert answer.headers["x-sha256"] == hashlib.sha256(content).hexdigest() != before
    assert answer.headers["content-encoding"] == "identity"
    assert answer.headers["content-length"] == str(len(content))
    assert f'filename="{name}"' in answer.headers["content-disposition"]


def test_a_worker_elsewhere_gets_any_file_by_its_hash(client: httpx.Client, web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"pictures" * 1000)
    sha256 = Artifacts(web.settings.artifacts).add(tmp_path / "file")
    answer = client.get(f"/api/downloads/files/{sha256}")
    assert hashlib.sha256(answer.content).hexdigest() == sha256
    foreign = {"Host": "foreign.example"}
    assert client.get(f"/api/downloads/files/{sha256}", headers=foreign).status_code == 403


@pytest.mark.parametrize("path", ["variants/none", f"files/{'0' * 64}", "files/passwd"])
def test_what_is_not_there_is_not_found(client: httpx.Client, path: str) -> None:
    assert client.get(f"/api/downloads/{path}").status_code == 404


@pytest.mark.parametrize(
    ("run", "stage", "name"),
    [
        ("Pruned 50 %", 2, "Pruned-50-stage2.onnx"),
        ("../../x", 0, "x.onnx"),
        ('"; rm', 1, "rm-stage1.onnx"),
        ("Größe", 1, "Gr-e-stage1.onnx"),
        ("–", 0, "model.onnx"),
    ],
)
def test_names_fit_every_system(run: str, stage: int, name: str) -> None:
    assert file_name(run, stage) == name


def test_a_state_changes_when_a_page_must_be_drawn_again(client: httpx.Client, web: Web) -> None:
    def seen() -> dict[str, object]:
        time.sleep(FRESH_SECONDS)
        return dict(client.get("/api/state/models").json())

    with transaction(web.settings.database) as session:
        model = models_.add(session, name="net", upload_sha256="a" * 64)
        job = jobs.add(session, "import", model.id, queue="cpu", request={"noun": "model"})
    queued = seen()
    with transaction(web.settings.database) as session:
        attempt = jobs.claim(session, job.id, "worker-2")
    assert attempt == 1
    running = seen()
    assert running["version"] != queued["version"]
    with transaction(web.settings.database) as session:
        jobs.progress(session, job.id, attempt, stage=0, share=0.5, text="Exporting")
    moved = seen()
    assert moved["version"] == running["version"]  # drawn by the page itself, without a rerun
    assert moved["jobs"] == {job.id: {"state": "running", "share": 0.5, "text": "Exporting"}}
    with transaction(web.settings.database) as session:
        jobs.end(session, job.id, attempt, "done")
    assert seen()["version"] != moved["version"]


@pytest.mark.parametrize("topic", ["models", "data", "runs", "targets"])
def test_every_topic_answers(client: httpx.Client, topic: str) -> None:
    assert client.get(f"/api/state/{topic}").json()["version"]


@pytest.mark.parametrize("topic", ["nothing", "models/1", ""])
def test_other_topics_do_not(client: httpx.Client, topic: str) -> None:
    assert client.get(f"/api/state/{topic}").status_code == 404


def test_health_asks_the_database(client: httpx.Client) -> None:
    assert client.get("/api/health").json()["status"] == "ok"
