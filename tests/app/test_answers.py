"""Two models on the same samples, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from app.answers import Answers, answers_of, paired
from db.artifacts import Artifacts

LABELS = np.array([0, 0, 0, 1, 1, 3])
FIRST = Answers(np.array([0, 0, 1, 1, 0, 3]), LABELS)
SECOND = Answers(np.array([0, 1, 1, 1, 1, 0]), LABELS)


def test_accuracy_per_class() -> None:
    found = FIRST.per_class(4)
    np.testing.assert_allclose(found[[0, 1, 3]], [2 / 3, 1 / 2, 1])
    assert np.isnan(found[2])


def test_who_is_right_alone_and_whether_chance_explains_it() -> None:
    # Sample 1 and 5 only by the first, sample 4 only by the second: 3 of 3 or 2:1 has p = 1.
    assert paired(FIRST, SECOND) == (2, 1, 1.0)
    assert paired(FIRST, FIRST) == (0, 0, 1.0)
    ten = Answers(np.zeros(10, int), np.zeros(10, int))
    none = Answers(np.ones(10, int), np.zeros(10, int))
    assert paired(ten, none) == (10, 0, 2 * 0.5**10)
    assert paired(none, ten) == (0, 10, 2 * 0.5**10)


def test_other_samples_are_not_compared() -> None:
    assert paired(FIRST, Answers(SECOND.guesses[:5], LABELS[:5])) is None


def test_what_was_not_kept_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Artifacts(tmp_path / "artifacts")
    monkeypatch.setattr("app.answers.artifacts", lambda: store)
    assert answers_of(None) is None
    assert answers_of("a" * 64) is None
    np.savez(tmp_path / "kept.npz", validation=FIRST.guesses, validation_labels=LABELS)
    found = answers_of(store.add(tmp_path / "kept.npz"))
    assert found is not None
    assert found.right.tolist() == FIRST.right.tolist()
