"""Files from the web process: whole and true, or a sentence and nothing kept."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from db.artifacts import Artifacts
from db.models import Job
from db.settings import Settings
from workers.assignment import Assignment
from workers.errors import GateFailed, SomethingMissing
from workers.watcher import KEPT_SECONDS, sweep
from workers.work import fetching
from workers.work.fetching import stored

CONTENT = b"weights" * 500_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Served:
    """What the address answers; asked: the paths that were asked for. first: status and body before that."""

    address: str = ""
    status: int = 200
    body: bytes = CONTENT
    length: int = len(CONTENT)
    asked: list[str] = field(default_factory=list)
    first: list[tuple[int, bytes]] = field(default_factory=list)


@pytest.fixture
def served() -> Iterator[Served]:
    told = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            status, body = told.first.pop(0) if told.first else (told.status, told.body)
            self.send_response(status)
            self.send_header("Content-Length", str(told.length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


def assignment(folder: Path, web: str) -> Assignment:
    settings = Settings(data=folder / "data", web_url=web)
    job_folder = settings.data / "jobs" / "1"
    job_folder.mkdir(parents=True)
    return Assignment(Job(kind="measure"), 1, settings, job_folder)


def test_a_file_is_fetched_once(served: Served, tmp_path: Path) -> None:
    ours = assignment(tmp_path, f"{served.address}/")
    file = stored(ours, SHA256)
    assert file.read_bytes() == CONTENT
    assert file == Artifacts(ours.settings.fetched).path(SHA256)
    assert stored(ours, SHA256) == file
    assert served.asked == [f"/api/downloads/files/{SHA256}"]
    assert list(ours.folder.iterdir()) == []


def test_what_was_fetched_is_kept_as_long_as_it_is_used(served: Served, tmp_path: Path) -> None:
    """And what is in the dashboard's own store for good."""
    ours = assignment(tmp_path, served.address)
    then = time.time() - KEPT_SECONDS - 60
    own = ours.settings.artifacts / "ab" / ("ab" + 62 * "0")
    own.parent.mkdir(parents=True)
    own.write_text("the only copy")
    for file in (own, stored(ours, SHA256)):
        os.utime(file, (then, then))
    file = stored(ours, SHA256)
    sweep(ours.settings.data)
    assert file.exists()
    assert len(served.asked) == 1
    os.utime(file, (then, then))
    sweep(ours.settings.data)
    assert not file.exists()
    assert own.exists()
    assert stored(ours, SHA256).read_bytes() == CONTENT
    assert len(served.asked) == 2


@pytest.mark.parametrize(
    "body", [CONTENT[:-1] + b"!", CONTENT[: len(CONTENT) // 2], b""], ids=["other", "cut", "none"]
)
def test_other_bytes_are_refused_and_not_kept(
    served: Served, tmp_path: Path, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0,))
    served.body = body
    ours = assignment(tmp_path, served.address)
    with pytest.raises(GateFailed, match=r"cut short or damaged: its SHA-256 is .*Retry"):
        stored(ours, SHA256)
    assert not [path for path in ours.settings.data.rglob("*") if path.is_file()]


def test_what_the_dashboard_refuses_is_told_in_its_words(served: Served, tmp_path: Path) -> None:
    served.status, served.body = 403, b'{"detail": "This address is not one of ours."}'
    served.length = len(served.body)
    with pytest.raises(SomethingMissing, match=r"refused by http.* \(403\): This address is not one of ours"):
        stored(assignment(tmp_path, served.address), SHA256)


def test_a_dashboard_that_starts_again_is_waited_for(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = assignment(tmp_path, served.address)

    def away(seconds: float) -> None:
        monkeypatch.setattr(fetching, "urlopen", urlopen)
        assert seconds == fetching.PAUSES_S[0]

    def refused(*_: object, **__: object) -> None:
        raise URLError(ConnectionRefusedError(111, "Connection refused"))

    monkeypatch.setattr(fetching, "urlopen", refused)
    monkeypatch.setattr("time.sleep", away)
    assert stored(ours, SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer", [(502, b"Bad gateway"), (503, b""), (200, CONTENT[:1000])], ids=["502", "503", "cut"]
)
def test_a_proxy_without_a_dashboard_and_a_file_cut_short_are_tried_again(
    served: Served, tmp_path: Path, answer: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0, 0.0))
    served.first = [answer, answer]
    ours = assignment(tmp_path, served.address)
    assert stored(ours, SHA256).read_bytes() == CONTENT
    assert len(served.asked) == 3
    assert list(ours.folder.iterdir()) == []


def test_a_dashboard_that_is_away_and_none_are_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0,))
    with pytest.raises(SomethingMissing, match=r"http://127.0.0.1:9 was not reached .*PAREDOWN_WEB_URL"):
        stored(assignment(tmp_path / "away", "http://127.0.0.1:9"), SHA256)
    with pytest.raises(SomethingMissing, match=r"not in this worker's data folder\. .*PAREDOWN_WEB_URL"):
        stored(assignment(tmp_path / "none", ""), SHA256)
