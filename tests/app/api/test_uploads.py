"""Uploads against the real web process: what is kept, what is refused, what stays behind."""

import hashlib
import http.client
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from db import datasets, jobs, models_
from db.session import reading
from tests.support.web import Web

WRITE = {"X-Paredown": "1"}


def announce(client: httpx.Client, content: bytes, name: str = "a.zip", noun: str = "dataset") -> str:
    said = {"noun": noun, "file_name": name, "size_bytes": len(content)}
    answer = client.post("/api/uploads", json=said, headers=WRITE)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def put(client: httpx.Client, upload: str, offset: int, content: bytes, **headers: str) -> httpx.Response:
    path = f"/api/uploads/{upload}?offset={offset}"
    return client.put(path, content=content, headers=WRITE | headers)


def finish(client: httpx.Client, upload: str) -> httpx.Response:
    return client.post(f"/api/uploads/{upload}/finish", headers=WRITE)


def partials(web: Web) -> list[Path]:
    return list(web.settings.uploads.glob("*")) + list(web.settings.artifacts.glob("*.partial"))


def test_a_file_arrives_in_chunks_and_becomes_a_row_and_a_job(client: httpx.Client, web: Web) -> None:
    content = bytes(range(256)) * 40_000  # more than one chunk
    upload = announce(client, content, "digits <b>&.zip")
    first = 8 << 20
    digest = hashlib.sha256(content[:first]).hexdigest()
    assert put(client, upload, 0, content[:first], **{"X-Chunk-SHA256": digest}).status_code == 200
    assert put(client, upload, first, content[first:]).json()["received_bytes"] == len(content)
    made = finish(client, upload).json()
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    with reading(web.settings.database) as session:
        dataset = datasets.find(session, made["id"])
        job = jobs.latest(session, [made["id"]])[made["id"]]
    assert dataset is not None
    assert (dataset.name, dataset.upload_sha256) == ("digits <b>&.zip", made["sha256"])
    assert (job.kind, job.state, job.request) == ("import", "queued", {"noun": "dataset"})
    kept = web.settings.artifacts / made["sha256"][:2] / made["sha256"]
    assert kept.read_bytes() == content
    assert partials(web) == []


def test_how_weights_are_to_be_read_travels_with_them(client: httpx.Client, web: Web) -> None:
    said = {"noun": "model", "file_name": "w.pt", "size_bytes": 3, "architecture": "resnet18", "mean": [0.5]}
    upload = client.post("/api/uploads", json=said, headers=WRITE).json()["id"]
    put(client, upload, 0, b"abc")
    made = finish(client, upload).json()["id"]
    with reading(web.settings.database) as session:
        assert models_.find(session, made) is not None
        request = jobs.latest(session, [made])[made].request
    assert request == {"noun": "model", "architecture": "resnet18", "mean": [0.5]}


def test_a_chunk_that_is_damaged_or_elsewhere_changes_nothing(client: httpx.Client) -> None:
    upload = announce(client, b"abcdef")
    assert put(client, upload, 0, b"abc").status_code == 200
    assert put(client, upload, 3, b"dXf", **{"X-Chunk-SHA256": "0" * 64}).status_code == 422
    assert put(client, upload, 0, b"abc").status_code == 409
    assert put(client, upload, 3, b"defg").status_code == 422
    assert client.get(f"/api/uploads/{upload}").json()["received_bytes"] == 3
    assert finish(client, upload).status_code == 409
    assert put(client, upload, 3, b"def").status_code == 200
    assert finish(client, upload).json()["sha256"] == hashlib.sha256(b"abcdef").hexdigest()


def test_a_connection_that_breaks_in_mid_chunk_leaves_the_chunk_before(
    client: httpx.Client, web: Web
) -> None:
    upload = announce(client, b"x" * 5_000_000)
    assert put(client, upload, 0, b"x" * 1_000_000).status_code == 200
    broken = http.client.HTTPConnection(urlsplit(web.address).netloc)
    broken.putrequest("PUT", f"/api/uploads/{upload}?offset=1000000")
    for name, value in (WRITE | {"Content-Length": "4000000"}).items():
        broken.putheader(name, value)
    broken.endheaders(b"x" * 2_000_000)
    broken.close()
    for _ in range(100):
        answer = put(client, upload, 1_000_000, b"x" * 4_000_000)
        if answer.status_code == 200:
            break
    assert finish(client, upload).json()["sha256"] == hashlib.sha256(b"x" * 5_000_000).hexdigest()


def test_the_same_file_goes_on_and_is_read_as_was_said_last(client: httpx.Client, web: Web) -> None:
    said = {"noun": "model", "file_name": "w.pt", "size_bytes": 6, "fingerprint": "f", "architecture": "a"}
    first = client.post("/api/uploads", json=said, headers=WRITE).json()
    put(client, first["id"], 0, b"abc")
    again = client.post("/api/uploads", json=said | {"architecture": "b"}, headers=WRITE).json()
    assert (again["id"], again["received_bytes"]) == (first["id"], 3)
    put(client, first["id"], 3, b"def")
    made = finish(client, first["id"]).json()
    assert made["sha256"] == hashlib.sha256(b"abcdef").hexdigest()
    with reading(web.settings.database) as session:
        assert jobs.latest(session, [made["id"]])[made["id"]].request["architecture"] == "b"
    fresh = client.post("/api/uploads", json=said, headers=WRITE).json()  # the first one is finished
    assert fresh["received_bytes"] == 0
    client.delete(f"/api/uploads/{fresh['id']}", headers=WRITE)


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "g"},
        {"fingerprint": None},
        {"size_bytes": 7},
        {"file_name": "v.pt"},
        {"noun": "dataset"},
    ],
)
def test_another_file_begins_anew(client: httpx.Client, other: dict[str, object]) -> None:
    said = {"noun": "model", "file_name": f"{other}.pt", "size_bytes": 6, "fingerprint": "f"}
    if "fingerprint" in other:
        said |= {"fingerprint": other["fingerprint"] and "f"}
    first = client.post("/api/uploads", json=said, headers=WRITE).json()["id"]
    put(client, first, 0, b"abc")
    second = client.post("/api/uploads", json=said | other, headers=WRITE).json()
    assert second["id"] != first
    assert second["received_bytes"] == 0
    for upload in (first, second["id"]):
        client.delete(f"/api/uploads/{upload}", headers=WRITE)


def test_giving_up_leaves_nothing(client: httpx.Client, web: Web) -> None:
    upload = announce(client, b"abc")
    put(client, upload, 0, b"a")
    assert client.delete(f"/api/uploads/{upload}", headers=WRITE).status_code == 204
    assert client.get(f"/api/uploads/{upload}").status_code == 404
    assert partials(web) == []


@pytest.mark.parametrize("upload", ["..%2F..%2Fetc", "0" * 32, "A" * 32, "paredown.db", "0" * 31 + "%0A"])
def test_only_ids_that_were_given_out_lead_anywhere(client: httpx.Client, upload: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = client.request(method, f"/api/uploads/{upload}?offset=0", headers=WRITE, content=b"a")
        assert answer.status_code in (400, 404, 405)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\models\\net.pt", "net.pt"),
        ("résumé\u202e\n.pt", "résumé.pt"),
        ("..", "unnamed"),
    ],
)
def test_names_are_kept_as_text_only(client: httpx.Client, web: Web, name: str, kept: str) -> None:
    upload = announce(client, b"abc", name)
    put(client, upload, 0, b"abc")
    made = finish(client, upload).json()["id"]
    with reading(web.settings.database) as session:
        found = datasets.find(session, made)
    assert found is not None
    assert found.name == kept


def test_a_file_over_the_limit_is_refused_before_it_is_sent(client: httpx.Client, web: Web) -> None:
    said = {"noun": "model", "file_name": "big.pt", "size_bytes": (20 << 20) + 1}
    answer = client.post("/api/uploads", json=said, headers=WRITE)
    assert answer.status_code == 413
    assert "20 MiB" in answer.json()["detail"]
    assert partials(web) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "{own}"}, 403),
        (WRITE | {"Origin": "https://evil.example"}, 403),
        (WRITE | {"Origin": "null"}, 403),
        (WRITE | {"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        (WRITE | {"Origin": "{own}"}, 201),
        (WRITE, 201),
    ],
)
def test_only_our_own_pages_write(
    client: httpx.Client, web: Web, headers: dict[str, str], status: int
) -> None:
    said = {"noun": "model", "file_name": "a.pt", "size_bytes": 1}
    sent = {name: value.format(own=web.address) for name, value in headers.items()}
    answer = client.post("/api/uploads", json=said, headers=sent)
    assert answer.status_code == status
    if status == 201:
        client.delete(f"/api/uploads/{answer.json()['id']}", headers=WRITE)


def test_a_foreign_name_that_leads_here_reads_nothing(client: httpx.Client) -> None:
    assert client.get("/api/health", headers={"Host": "evil.example"}).status_code == 403
