"""Against the formulas, one number at a time."""

import math

import numpy as np
import pytest

from workers.exits.scores import Score, agreement, exit_scores, leaving, leaving_together, never

KINDS: tuple[Score, ...] = ("probability", "entropy", "margin", "patience")


def by_hand(kind: Score, logits: list[float], temperature: float) -> float:
    powers = [math.exp(logit / temperature) for logit in logits]
    p = sorted((power / sum(powers) for power in powers), reverse=True)
    if kind == "probability":
        return p[0]
    if kind == "margin":
        return p[0] - p[1]
    return 1 - sum(q * math.log(1 / q) for q in p) / math.log(len(p))


@pytest.mark.parametrize("kind", ["probability", "entropy", "margin"])
def test_the_formulas(kind: Score) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (20, 3, 5)).astype(np.float32)
    temperatures = (0.5, 1.0, 2.0)
    scores = exit_scores(kind, logits, temperatures)
    assert scores.dtype == np.float32
    for sample in range(20):
        for place, temperature in enumerate(temperatures):
            expected = by_hand(kind, logits[sample, place].tolist(), temperature)
            assert scores[sample, place] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["probability", "entropy", "margin"])
def test_surer_is_higher_and_nothing_is_surer_than_never(kind: Score) -> None:
    steps = np.array([[[0, 0, 0]], [[1, 0, 0]], [[3, 0, 0]], [[200, 0, 0]]], np.float32)
    scores = exit_scores(kind, steps, (1.0,))[:, 0]
    assert (np.diff(scores) > 0).all()
    assert scores.max() <= never(kind, 1)


def test_patience_counts_equal_answers_in_a_row() -> None:
    answers = np.array([[2, 2, 2, 2], [1, 2, 2, 1], [0, 1, 0, 0], [3, 3, 1, 1]])
    np.testing.assert_array_equal(
        agreement(answers), [[1, 2, 3, 4], [1, 1, 2, 1], [1, 1, 1, 2], [1, 2, 1, 2]]
    )
    logits = np.eye(4, dtype=np.float32)[answers]
    np.testing.assert_array_equal(exit_scores("patience", logits, (1.0,) * 4), agreement(answers))
    assert (leaving(agreement(answers), (never("patience", 4),) * 4) == 5).all()


def test_the_first_exit_that_is_surer_than_its_threshold() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.9], [0.5, 0.5], [0.1, 0.2]], np.float32)
    np.testing.assert_array_equal(leaving(scores, (0.5, 0.4)), [1, 2, 2, 3])


def test_a_batch_leaves_when_all_of_its_rows_are_sure() -> None:
    """Row 0 alone would leave at once, row 3 is never sure; the last batch is short."""
    scores = np.array([[0.9, 0.9], [0.1, 0.9], [0.9, 0.9], [0.1, 0.1], [0.9, 0.1]], np.float32)
    np.testing.assert_array_equal(leaving_together(scores, (0.5, 0.5), 2), [2, 2, 3, 3, 1])
    np.testing.assert_array_equal(leaving_together(scores, (0.5, 0.5), 1), leaving(scores, (0.5, 0.5)))
