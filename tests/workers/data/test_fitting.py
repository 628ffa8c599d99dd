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
    meant = [CLASSES[order.index(answer)] for answer in range(4)]
    assert f"its answers mean {', '.join(map(repr, meant))}." in said


def test_many_classes_with_two_samples_each() -> None:
    labels = np.repeat(np.arange(100), 2)
    names = [f"class {number}" for number in range(100)]
    assert "renumbered" in str(warn_if_guessing((labels + 1) % 100, labels, names))
    assert warn_if_guessing(labels, labels, names) is None
    draw = np.random.default_rng(0)
    for _ in range(20):  # any matching fits some of the samples that it was found on
        assert "renumbered" not in str(warn_if_guessing(draw.integers(0, 100, 200), labels, names))


def test_two_classes_that_are_taken_for_each_other_are_no_other_order() -> None:
    """Of the boots 60 % are called sandals, of the sandals 55 % boots; the rest is right."""
    labels = np.arange(800) % 4
    share = np.arange(800) // 4 / 200
    guesses = np.where((labels == 1) & (share < 0.6), 2, np.where((labels == 2) & (share < 0.55), 1, labels))
    assert warn_if_guessing(guesses, labels, CLASSES) is None


@pytest.mark.parametrize("labels", [[], [1], [1] * 500])
def test_what_cannot_be_told_is_not_said(labels: list[int]) -> None:
    """No samples, one, or one class: a perfect model would look the same."""
    guesses, right = np.zeros(len(labels), int), np.array(labels, int)
    assert warn_if_guessing(guesses, right, CLASSES) is None
