"""Was the model trained on the samples that are meant to judge it?"""

import math

from scipy.stats import norm

#: Chance of a false alarm.
ALPHA = 0.01


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
