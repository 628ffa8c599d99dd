"""Do model and data belong together? What the answers of the model as uploaded say about it."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, norm

#: Chance of a false alarm.
ALPHA = 0.01
#: What renumbering the answers has to bring: so many right, and so many more than without it. A model that
#: only takes two classes for each other gains less.
RENUMBERED, GAINED = 0.5, 0.1
#: Of the classes are named at most.
NAMED = 12


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
    order = _other_order(guesses, labels, len(classes))
    told = f"The uploaded model is right on {right / samples:.1%} of the validation samples; "
    if order is not None:
        more = ", …" if len(classes) > NAMED else ""
        meant = ", ".join(repr(classes[label]) for label in order[:NAMED])
        return told + (
            f"with its answers renumbered it would be right on {(order[guesses] == labels).mean():.1%}. The "
            "classes of the data stand in another order than those that it was trained with: its answers "
            f"mean {meant}{more}. Bring the data in that order: an .npz with `classes`, or folders whose "
            "names sort so."
        )
    if binomtest(right, samples, counts.max() / samples, alternative="greater").pvalue < ALPHA:
        return None
    return told + (
        f"always answering {classes[int(counts.argmax())]!r} would be right on {counts.max() / samples:.1%}. "
        "Check that mean and std at its upload are those that it was trained with, and that it was trained "
        "for these classes; figures that compare with it mean little until then."
    )


def _other_order(guesses: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray | None:
    """The label that each answer stands for, (classes,); None where they are numbered as they should be.

    The best matching of the confusion matrix (Kuhn 1955) of one half of the samples has to win on the other
    half, by a sign test: any matching wins on the samples that it was found on.
    """
    halves = np.array_split(np.random.default_rng(0).permutation(len(labels)), 2)
    order = _matching(guesses[halves[0]], labels[halves[0]], classes)
    renumbered, given, meant = order[guesses[halves[1]]], guesses[halves[1]], labels[halves[1]]
    won, lost = int((renumbered == meant).sum()), int((given == meant).sum())
    if won < RENUMBERED * len(meant) or won - lost < GAINED * len(meant):
        return None
    differ = int((renumbered != given)[(renumbered == meant) | (given == meant)].sum())
    gained = int(((renumbered == meant) & (given != meant)).sum())
    if binomtest(gained, differ, 0.5, alternative="greater").pvalue >= ALPHA:
        return None
    return _matching(guesses, labels, classes)


def _matching(guesses: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """For each answer the label that it stands for; its own where nothing speaks against it."""
    confusion = np.eye(classes) / 2
    np.add.at(confusion, (guesses, labels), 1)
    return np.asarray(linear_sum_assignment(confusion, maximize=True)[1])
