"""What a job is said to do."""

import pytest

from app.waiting import sentence
from db.models import Job


@pytest.mark.parametrize(
    ("state", "queue", "text", "online", "said"),
    [
        ("queued", "target.pi5", "Waiting for a worker", {"cpu"}, "Waits for target pi5, which is offline"),
        ("queued", "target.pi5", "", {"cpu", "target.pi5"}, "Waiting for a worker"),
        ("queued", "cpu", "", set(), "Waiting for a worker"),
        ("running", "target.pi5", "Reading", set(), "Reading"),
        ("running", "cpu", "", {"cpu"}, "Starting"),
    ],
)
def test_only_what_waits_for_a_machine_that_is_away_says_so(
    state: str, queue: str, text: str, online: set[str], said: str
) -> None:
    assert sentence(Job(kind="measure", state=state, queue=queue, text=text), online) == said
