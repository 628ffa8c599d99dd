"""Do model and data belong together? What the answers of the model as uploaded say about it."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, norm

#: Chance of a false alarm.
ALPHA = 0.01
#: Of the samples that a model with renumbered classes gets right, at least; guesses get far less.
RENUMBERED = 0.5


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
    """Return a warning when the baseline is no better than always giving the most frequent answer.

    guesses, labels: (N,) indices into classes. One-sided binomial test; None when there is nothing to say. If
    other numbers for the classes would make most answers right (the best matching of the confusion matrix;
    Kuhn 1955), the warning says so.
    """
    right, samples = int((guesses == labels).sum()), len(labels)
    counts = np.bincount(labels, minlength=len(classes))
    if not samples or (counts.max() / samples) ** samples >= ALPHA:
        return None  # too few to tell even a perfect model from one that guesses
    if binomtest(right, samples, counts.max() / samples, alternative="greater").pvalue < ALPHA:
        return None
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (guesses, labels), 1)
    matched = confusion[linear_sum_assignment(confusion, maximize=True)].sum() / samples
    told = (
        f"The uploaded model is right on {right / samples:.1%} of the validation samples; always answering "
        f"{classes[int(counts.argmax())]!r} would be right on {counts.max() / samples:.1%}. "
    )
    if matched >= RENUMBERED:
        return told + (
            f"With its answers renumbered it would be right on {matched:.1%}: the classes of the data stand "
            "in another order than those that it was trained with. Bring the data in that order."
        )
    return told + (
        "Check that mean and std at its upload are those that it was trained with, and that it was trained "
        "for these classes; figures that compare with it mean little until then."
    )
