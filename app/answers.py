"""What two files answered to the same samples: per class, and sample by sample."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from app.session import artifacts


@dataclass(frozen=True)
class Answers:
    """guesses, labels: (N,) of the validation split, in its order."""

    guesses: np.ndarray
    labels: np.ndarray

    @property
    def right(self) -> np.ndarray:
        return np.asarray(self.guesses == self.labels)

    def per_class(self, classes: int) -> np.ndarray:
        """(classes,) accuracy; NaN for a class without samples."""
        sizes = np.bincount(self.labels, minlength=classes)
        hits = np.bincount(self.labels[self.right], minlength=classes)
        return np.asarray(np.divide(hits, sizes, out=np.full(classes, np.nan), where=sizes > 0))


def answers_of(sha256: str | None) -> Answers | None:
    """From the store; None for points of before answers were kept."""
    if sha256 is None:
        return None
    try:
        path = artifacts().path(sha256)
    except KeyError:
        return None
    with np.load(path, allow_pickle=False) as kept:
        return Answers(kept["validation"], kept["validation_labels"])


def paired(first: Answers, second: Answers) -> tuple[int, int, float] | None:
    """(only the first is right, only the second is right, p); None when the samples are not the same.

    p: exact McNemar test (McNemar 1947) of both being right equally often.
    """
    if not np.array_equal(first.labels, second.labels):
        return None
    lost, won = int((first.right & ~second.right).sum()), int((~first.right & second.right).sum())
    return lost, won, 1.0 if lost + won == 0 else float(binomtest(lost, lost + won).pvalue)
