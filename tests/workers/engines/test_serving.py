"""The other end of the pipe, with an engine of known speed."""

import io
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workers.engines.serving import serve
from workers.engines.wire import Refused, receive, send

Question = tuple[dict[str, Any], np.ndarray | None]


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def answers(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[np.ndarray], np.ndarray], *questions: Question
) -> list[Question]:
    """What a process says to these; the file is opened first."""
    engine = SimpleNamespace(open_file=lambda file, threads: call)  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "workers.engines.made_up", engine)
    told, said = io.BytesIO(), io.BytesIO()
    opening = {"do": "open", "id": 0, "file": "f", "threads": 1}
    for message, inputs in ((opening, None), *questions):
        send(told, {"id": 0, "closed": [], **message}, inputs)
    told.seek(0)
    serve(told, said, "made_up")
    said.seek(0)
    found = []
    while (answer := receive(said)) is not None:
        found.append(answer)
    assert len(found) == 1 + len(questions)
    return found[1:]


def test_numbers_travel_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that lie otherwise in memory, and none at all."""
    inputs = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
    shapes: list[np.ndarray] = [
        inputs,
        inputs.transpose(0, 2, 3, 1),
        inputs[:0],
        np.full_like(inputs, np.nan),
    ]
    found = answers(monkeypatch, lambda given: 2 * given, *(({"do": "run"}, shape) for shape in shapes))
    for (_, got), given in zip(found, shapes, strict=True):
        assert got is not None
        np.testing.assert_array_equal(got, 2 * given)


@pytest.mark.parametrize("warm", [True, False])
def test_a_time_is_that_of_one_call_and_nothing_else(monkeypatch: pytest.MonkeyPatch, warm: bool) -> None:
    """20 MB go through the pipe. Fails when the time holds them, the call before, or the pause."""
    calls: list[int] = []

    def call(inputs: np.ndarray) -> np.ndarray:
        calls.append(len(inputs))
        spin(0.003)
        return inputs[:1]

    asked = ({"do": "time", "warm": warm}, np.zeros((5, 1000, 1000), np.float32))
    found = answers(monkeypatch, call, *[asked] * 5)
    assert len(calls) == 5 * (2 if warm else 1)
    # The least of five: another process may take the core now and then.
    assert 0.003 <= min(told["seconds"] for told, _ in found) < 0.006
    assert {nothing for _, nothing in found} == {None}


def test_waiting_is_seen_where_it_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(inputs: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return inputs

    ((told, _),) = answers(monkeypatch, wait, ({"do": "time", "warm": False}, ONE))
    assert told["disturbed"] is True


ONE = np.zeros((1, 1), np.float32)


def test_an_error_is_a_sentence_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([Refused("too odd"), ValueError("line 1\nline 2")])

    def call(inputs: np.ndarray) -> np.ndarray:
        for error in turns:
            raise error
        return inputs

    found = answers(monkeypatch, call, *[({"do": "run"}, ONE)] * 3)
    assert [message.get("refused") for message, _ in found] == ["too odd", "ValueError: line 1 line 2", None]


def test_a_stream_that_is_cut_off_ends_it() -> None:
    whole = io.BytesIO()
    send(whole, {"do": "run"}, np.zeros((3, 3), np.float32))
    for length in (0, 5, len(whole.getvalue()) - 1):
        assert receive(io.BytesIO(whole.getvalue()[:length])) is None
