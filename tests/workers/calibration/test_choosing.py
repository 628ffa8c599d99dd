"""Thresholds from few samples, judged by many that had no part in the choice."""

import numpy as np
import pytest

from workers.calibration.choosing import choose
from workers.exits.scores import exit_scores
from workers.exits.thresholds import Answers, find_frontier

PATH_MS = (1.0, 2.0, 3.0)


def synthetic(seed: int, size: int = 1000) -> Answers:
    """Exits that agree with the end where their score is high."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (size, 2, 3)).astype(np.float32)
    scores = exit_scores("probability", logits, (1.0, 1.0))
    end = generator.random((size, 1)) < 0.9
    return Answers(
        "probability",
        scores,
        np.hstack([np.where(generator.random((size, 2)) < scores, end, ~end), end]),
        np.array(PATH_MS),
    )


@pytest.mark.parametrize("max_drop", [0.0, 0.5, 3.0, 100.0])
def test_no_more_than_max_drop_is_lost_on_all_validation_samples(max_drop: float) -> None:
    for seed in range(20):
        answers = synthetic(seed)
        point, promised = choose(answers, max_drop=max_drop, confidence=None, seed=seed)
        assert promised is None
        assert point == answers.of(point.thresholds)
        assert point.accuracy >= answers.correct[:, -1].mean() - max_drop / 100 - 1e-9


def test_the_promised_thresholds_keep_max_drop_too() -> None:
    for seed in range(20):
        answers = synthetic(seed)
        point, promised = choose(answers, max_drop=4, confidence=0.9, seed=seed)
        assert promised is not None
        assert point.accuracy >= answers.correct[:, -1].mean() - 0.04


def test_a_promise_with_little_confidence_does_not_outweigh_what_was_seen() -> None:
    """Fails when the promised point is taken whatever it costs."""
    refused = 0
    for seed in range(20):
        answers = synthetic(seed)
        point, promised = choose(answers, max_drop=4, confidence=0.01, seed=seed)
        assert promised is not None
        assert point.worse <= 0.04
        if promised.thresholds is None:
            refused += 1
            assert " of all 1,000 samples get worse, more than 4 %" in promised.sentence
    assert refused > 0


def test_one_sample_is_too_few_for_a_promise() -> None:
    _, promised = choose(synthetic(0, 1), max_drop=4, confidence=0.9, seed=0)
    assert promised is not None
    assert promised.thresholds is None


def test_the_held_out_half_does_not_propose() -> None:
    """Other answers in the testing half: the candidates stay, only how far one may go changes."""
    answers = synthetic(0, 2000)
    held_out = np.random.default_rng(0).permutation(2000)[1::2]
    spoiled = answers.correct.copy()
    spoiled[held_out, 0] = False
    worse = Answers(answers.kind, answers.scores, spoiled, answers.path_ms)
    fast, _ = choose(answers, max_drop=8, confidence=0.9, seed=0)
    slow, _ = choose(worse, max_drop=8, confidence=0.9, seed=0)
    assert slow.mean_ms > fast.mean_ms


def population(right: tuple[float, float], size: int = 40_000) -> Answers:
    """Exits whose errors are rarer the surer they are; `right`: of the samples, 0-1. The end: 92.5 %."""
    generator = np.random.default_rng(0)
    hard = generator.beta(0.5, 2.5, size)
    luck = generator.random(size)
    columns = []
    for share in (*right, 0.925):
        differs = generator.random(size) < 0.05  # a network of its own, on some samples
        own = np.where(differs, generator.random(size), luck)
        columns.append(own > np.clip(hard * (1 - share) / hard.mean(), 0, 1))
    scores = np.stack([1 - hard + noise * generator.normal(size=size) for noise in (0.1, 0.06)], axis=1)
    return Answers(
        "probability",
        scores.clip(0.01, 0.999).astype(np.float32),
        np.stack(columns, axis=1),
        np.array([0.2, 0.6, 1.0]),
    )


def draws(everyone: Answers, size: int, tries: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """For each try, what thresholds chosen on `size` samples do to everyone: points lost, and mean ms."""
    full, found = everyone.correct[:, -1].mean(), []
    for seed in range(tries):
        rows = np.random.default_rng(seed).choice(len(everyone.scores), size, replace=False)
        point, _ = choose(everyone[rows], max_drop=0.5, confidence=None, seed=seed)
        fresh = everyone.of(point.thresholds)
        found.append((100 * (full - fresh.accuracy), fresh.mean_ms))
    drops, ms = np.array(found).T
    return drops, ms


@pytest.mark.parametrize("size", [200, 300, 450, 900])
def test_exits_as_good_as_the_end_are_used_from_few_samples(size: int) -> None:
    """Fails when a half of the samples proposes, and when what is not shown to be good enough is dropped."""
    drops, ms = draws(population((0.925, 0.925)), size)
    assert (ms < 0.9).all()
    assert ms.mean() < 0.5
    assert drops.mean() <= 0.5


@pytest.mark.parametrize("size", [450, 900])
def test_new_samples_lose_no_more_than_max_drop_on_average(size: int) -> None:
    """Where exits are worse than the end. Fails without the standard error: about 1 point is lost then."""
    everyone = population((0.86, 0.9))
    drops, ms = draws(everyone, size)
    assert drops.mean() <= 0.5 + 2 * drops.std() / np.sqrt(len(drops))
    assert ms.mean() < 1.0


def test_the_standard_error_is_that_of_the_mean_difference() -> None:
    """The chosen point keeps the rule, counted sample by sample, and all faster ones break it."""
    answers, rows = synthetic(3, 3000), np.arange(3000)
    point, _ = choose(answers, max_drop=3, confidence=None, seed=0)
    assert point.share[-1] < 1

    def judged(thresholds: tuple[float, ...]) -> float:
        left = (answers.scores > np.array(thresholds)).argmax(axis=1)
        left = np.where((answers.scores > np.array(thresholds)).any(axis=1), left, 2)
        lost = answers.correct[:, -1].astype(float) - answers.correct[rows, left]
        variance = (np.sum(lost**2) + 1) / len(lost) - lost.mean() ** 2
        return float(lost.mean() + np.sqrt(variance / len(lost)))

    assert judged(point.thresholds) <= 0.03
    faster = [other for other in find_frontier(answers).points if other.mean_ms < point.mean_ms]
    assert faster
    assert all(judged(other.thresholds) > 0.03 for other in faster)
