"""Do model and data belong together? What the answers of the model as uploaded say about it."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, norm

#: Chance of a false alarm.
ALPHA = 0.01
#: Of the samples that renumbered answers get right, at least; how many more than the answers as they are; and
#: how often a changed answer has to win for one that loses. Classes that are taken for each other gain less.
RENUMBERED, GAINED, ODDS = 0.5, 0.1, 3
#: With more classes than this the matching takes too much memory.
MATCHED_CLASSES = 3000
#: Of the changed classes so many are named, in so many letters each.
NAMED, LETTERS = 6, 16


def warn_if_trained_on(
    validation_correct: int, validation_n: int, test_correct: int, test_n: int
) -> str | None:
    """Return a warning when the baseline is better on validation than on test beyond chance.

    One-sided two-proportion z-test with pooled variance. None when there is nothing to say.
    """
    if min(validation_n, test_n) < 1:
        return None
    validation, test = validation_correct / validation_n, test_correct / test_n
    pooled = (validation_correct + test_correct) / (validation_n + test_n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / validation_n + 1 / test_n))
    if error == 0 or norm.sf((validation - test) / error) >= ALPHA:
        return None
    return (
        f"The uploaded model is right on {validation:.1%} of the validation samples but only on {test:.1%} "
        "of the test samples, more than chance explains: it was probably trained on the validation "
        "samples. Choices made on them will be too bold; trust the test figures, or bring validation "
        "samples that the model has not seen."
    )


def warn_if_guessing(guesses: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str | None:
    """Return a warning when the baseline is no better than always giving the most frequent answer, or when
    other numbers for its classes would make far more of its answers right.

    guesses, labels: (N,) indices into classes. One-sided binomial test; None when there is nothing to say.
    """
    right, samples = int((guesses == labels).sum()), len(labels)
    counts = np.bincount(labels, minlength=len(classes))
    if not samples or (counts.max() / samples) ** samples >= ALPHA:
        return None  # too few to tell even a perfect model from one that guesses
    often = counts.max() / samples
    told = f"The uploaded model is right on {right / samples:.1%} of the validation samples; "
    if len(classes) <= MATCHED_CLASSES and _in_another_order(guesses, labels, len(classes), often):
        meant = _matching(guesses, labels, len(classes))
        return told + (
            f"with its answers renumbered it would be right on {(meant[guesses] == labels).mean():.1%}: the "
            "classes of the data stand in another order than those that it was trained with. Bring the data "
            "in that order: folders sort by their names; in an .npz renumber `labels`, and sort `classes`. "
            f"What it calls {_examples(meant, guesses, classes)}."
        )
    if binomtest(right, samples, often, alternative="greater").pvalue < ALPHA:
        return None
    return told + (
        f"always answering {classes[int(counts.argmax())]!r} would be right on {often:.1%}. "
        "Check that mean and std at its upload are those that it was trained with, and that it was trained "
        "for these classes; figures that compare with it mean little until then."
    )


def _in_another_order(guesses: np.ndarray, labels: np.ndarray, classes: int, often: float) -> bool:
    """Whether the best matching of answers and labels wins on samples that it was not found on.

    Any matching wins on its own samples, so each half of every class is answered by that of the other half.
    often: share of the most frequent label, which has to be beaten too.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    meant = np.empty_like(guesses)
    for own, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        meant[own] = _matching(guesses[other], labels[other], classes)[guesses[own]]
    as_meant, as_given, changed = meant == labels, guesses == labels, meant != guesses
    won, lost = int((as_meant & changed).sum()), int((as_given & changed).sum())
    enough = max(RENUMBERED, as_given.mean() + GAINED)
    if as_meant.mean() < enough or won < ODDS * lost:
        return False
    by_chance = (
        binomtest(int(as_meant.sum()), len(labels), often, alternative="greater"),
        binomtest(won, won + lost, 0.5, alternative="greater"),
    )
    return all(test.pvalue < ALPHA for test in by_chance)


def _matching(guesses: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """For each answer the label that it stands for (Kuhn 1955); its own where nothing speaks against it."""
    confusion = np.eye(classes) / 2
    np.add.at(confusion, (guesses, labels), 1)
    return np.asarray(linear_sum_assignment(confusion, maximize=True)[1])


def _examples(meant: np.ndarray, guesses: np.ndarray, classes: Sequence[str]) -> str:
    """'a' is 'b', … of the answers that were given and stand for another class."""
    names = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in classes]
    given = [answer for answer in np.unique(guesses) if meant[answer] != answer]
    told = [f"{names[answer]!r} is {names[meant[answer]]!r}" for answer in given[:NAMED]]
    return ", ".join(told) + (" and so on" if len(given) > NAMED else "")
