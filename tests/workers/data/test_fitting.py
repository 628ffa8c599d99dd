from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binom, norm

from workers.data import warn_if_guessing, warn_if_trained_on


def test_the_limit_is_where_the_formula_by_hand_puts_it() -> None:
    """Equal sizes n, pooled p: z = (a - b) / sqrt(2 p (1 - p) / n); one-sided 1 % is z = 2.326."""
    n, test = 1000, 900

    def z(validation: int) -> float:
        p = (validation + test) / (2 * n)
        return float((validation - test) / n / np.sqrt(2 * p * (1 - p) / n))

    first = next(right for right in range(900, 1000) if z(right) > 2.3263)
    assert warn_if_trained_on(first - 1, n, test, n) is None
    assert "probably trained on the validation samples" in str(warn_if_trained_on(first, n, test, n))
    assert norm.sf(2.3263) == pytest.approx(0.01, rel=1e-3)


def test_a_network_trained_on_validation_is_told() -> None:
    assert warn_if_trained_on(500, 500, 700, 750) is not None


@pytest.mark.parametrize(
    "counts", [(450, 500, 690, 750), (400, 500, 740, 750), (500, 500, 750, 750), (0, 5, 0, 5), (0, 0, 3, 5)]
)
def test_nothing_is_said_of_chance_of_a_worse_validation_or_without_samples(
    counts: tuple[int, int, int, int],
) -> None:
    assert warn_if_trained_on(*counts) is None


def test_one_honest_network_in_a_hundred_is_suspected() -> None:
    chance = np.random.default_rng(0)
    pairs = zip(chance.binomial(500, 0.9, 3000), chance.binomial(750, 0.9, 3000), strict=True)
    alarms = sum(warn_if_trained_on(int(right), 500, int(test), 750) is not None for right, test in pairs)
    assert 10 < alarms < 60


CLASSES = ("bag", "boot", "sandal", "shoe")


def answers(right: float, *, samples: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Even classes; the given share of answers is right, the others are drawn."""
    draw = np.random.default_rng(0)
    labels = np.arange(samples) % len(CLASSES)
    guesses = np.where(draw.random(samples) < right, labels, draw.integers(0, len(CLASSES), samples))
    return guesses, labels


def test_a_model_that_guesses_is_called_so() -> None:
    for guesses, labels in (answers(0.0), (np.full(800, 2), answers(1.0)[1])):
        said = str(warn_if_guessing(guesses, labels, CLASSES))
        assert f"right on {(guesses == labels).mean():.1%} of" in said
        assert "always answering 'bag' would be right on 25.0%" in said
        assert "mean and std" in said


def test_it_is_the_most_frequent_class_that_has_to_be_beaten() -> None:
    labels = np.repeat([0, 1], [80, 20])
    assert "'bag' would be right on 80.0%" in str(warn_if_guessing(labels * 0, labels, CLASSES))
    limit = next(k for k in range(101) if binom.sf(k - 1, 100, 0.8) < 0.01)
    guesses = labels.copy()
    guesses[limit:] = 3
    assert warn_if_guessing(guesses, labels, CLASSES) is None
    guesses[limit - 1] = 3
    assert warn_if_guessing(guesses, labels, CLASSES) is not None


@pytest.mark.parametrize("right", [0.2, 0.5, 1.0])
def test_a_model_that_is_better_than_that_is_left_alone(right: float) -> None:
    assert warn_if_guessing(*answers(right), CLASSES) is None


@pytest.mark.parametrize("order", [(2, 0, 3, 1), (0, 1, 3, 2)])  # none in its place; half of them
def test_renumbered_classes_are_recognised(order: tuple[int, ...]) -> None:
    guesses, labels = answers(0.9)
    said = str(warn_if_guessing(np.array(order)[guesses], labels, CLASSES))
    assert f"with its answers renumbered it would be right on {(guesses == labels).mean():.1%}" in said
    moved = [answer for answer in range(4) if order[answer] != answer]
    for answer in moved:
        assert f"{CLASSES[order[answer]]!r} is {CLASSES[answer]!r}" in said
    assert said.count("' is '") == len(moved)
    assert len(said) < 600  # what pages show of it


@pytest.mark.parametrize(("classes", "each"), [(10, 2), (100, 2), (10, 200)])
def test_few_samples_of_each_class_are_enough(classes: int, each: int) -> None:
    names, labels = [f"class {number}" for number in range(classes)], np.repeat(np.arange(classes), each)
    draw = np.random.default_rng(0)
    found = chance = 0
    for _ in range(40):
        wrong = draw.random(len(labels)) < 0.1
        guesses = np.where(wrong, draw.integers(0, classes, len(labels)), labels)
        assert "renumbered" not in str(warn_if_guessing(guesses, labels, names))
        found += "renumbered" in str(warn_if_guessing(draw.permutation(classes)[guesses], labels, names))
        drawn = draw.integers(0, classes, len(labels))
        chance += "renumbered" in str(warn_if_guessing(drawn, labels, names))
    assert found > 30
    assert chance == 0


def test_a_matching_does_not_count_on_the_samples_it_was_found_on() -> None:
    """Of 15 random answers to 3 classes the best matching gets half right in most draws."""
    draw = np.random.default_rng(0)
    found = fitted = 0
    for _ in range(300):
        labels, guesses = np.arange(15) % 3, draw.integers(0, 3, 15)
        fitted += max((np.array(order)[guesses] == labels).mean() for order in permutations(range(3))) >= 0.5
        found += "renumbered" in str(warn_if_guessing(guesses, labels, CLASSES[:3]))
    assert fitted > 100
    assert found <= 3  # ALPHA of them


def other_answers(counts: Mapping[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray]:
    """counts: of (answer, label)."""
    pairs = np.repeat(np.array(list(counts)), list(counts.values()), axis=0)
    return pairs[:, 0], pairs[:, 1]


@pytest.mark.parametrize(
    "counts",
    [
        {(1, 0): 600, (1, 1): 133, (1, 2): 133, (1, 3): 134},  # one answer for all: of a broken model
        {(0, 0): 210, (1, 1): 210, (0, 1): 290, (1, 0): 290},  # worse than chance
        {(0, 0): 90, (1, 1): 90, (0, 1): 210, (1, 0): 210, (2, 2): 300},  # taken for each other
        {(0, 0): 80, (1, 1): 90, (0, 1): 110, (1, 0): 120, (2, 2): 200, (3, 3): 200},
    ],
)
def test_what_renumbering_does_not_explain_is_no_other_order(counts: Mapping[tuple[int, int], int]) -> None:
    assert "renumbered" not in str(warn_if_guessing(*other_answers(counts), CLASSES))


def test_more_classes_than_can_be_matched() -> None:
    labels = np.arange(100_000)
    assert warn_if_guessing(labels, labels, [str(number) for number in labels]) is None


@pytest.mark.parametrize("labels", [[], [1], [1] * 500])
def test_what_cannot_be_told_is_not_said(labels: list[int]) -> None:
    """No samples, one, or one class: a perfect model would look the same."""
    guesses, right = np.zeros(len(labels), int), np.array(labels, int)
    assert warn_if_guessing(guesses, right, CLASSES) is None
