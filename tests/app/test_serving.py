"""What a worker takes from, and what it refuses to start with."""

from collections.abc import Sequence
from typing import Any

import pytest

from app import serving
from tests.app.conftest import Paredown
from tests.app.test_cli import refused


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The queues of workers that were started."""
    queues: list[Sequence[str]] = []

    def serve(_: Any, of: Sequence[str]) -> None:
        queues.append(of)

    monkeypatch.setattr(serving, "serve", serve)
    return queues


@pytest.mark.parametrize(
    ("options", "device", "queues"),
    [
        ([], "cpu", ["cpu"]),
        ([], "cuda", ["gpu", "cpu"]),
        (["--target", "pi5"], "cuda", ["target.pi5"]),
        (["--target", "pi5", "--queues", "cpu"], "cpu", ["cpu", "target.pi5"]),
    ],
)
def test_a_target_only_measures_unless_told_otherwise(
    inside: Paredown, started: list[Sequence[str]], options: list[str], device: str, queues: list[str]
) -> None:
    assert inside("worker", *options, PAREDOWN_DEVICE=device).returncode == 0
    assert started == [queues]


@pytest.mark.parametrize("name", ["", "../x", "a b", "target/1", "x" * 41])
def test_a_name_is_part_of_files_and_links(inside: Paredown, started: list[Sequence[str]], name: str) -> None:
    refused(inside("worker", "--target", name), "is no name for a machine", "as in pi5")
    assert started == []


@pytest.mark.parametrize("options", [[], ["--queues", "cpu"], ["--target", "pi5", "--queues", "gpu"]])
def test_without_the_folder_a_worker_only_measures(
    inside: Paredown, started: list[Sequence[str]], options: list[str]
) -> None:
    web = {"PAREDOWN_WEB_URL": "http://server:8501"}
    refused(inside("worker", *options, **web), "PAREDOWN_WEB_URL", "--target NAME and no --queues")
    assert inside("worker", "--target", "pi5", **web).returncode == 0
    assert started == [["target.pi5"]]
