"""One temperature per exit, so that its probabilities mean what they say.

Guo et al. 2017, arXiv:1706.04599, section 4.2.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

#: Beyond, the samples say nothing more about it: an exit that is always right would get 0.
LEAST, MOST = 0.1, 10.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood, within LEAST and MOST; a float32 value.

    logits: (N, classes). labels: (N,) int64. Convex in 1 / temperature, so one search finds it.
    """

    def negative_log_likelihood(log_temperature: float) -> float:
        log_p = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -float(log_p[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(
        negative_log_likelihood,
        bounds=(np.log(LEAST), np.log(MOST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.float32(np.exp(found.x)))


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """(N, exits + 1, classes) -> one temperature per exit and one for the end."""
    return tuple(fit_temperature(logits[:, place], labels) for place in range(logits.shape[1]))
