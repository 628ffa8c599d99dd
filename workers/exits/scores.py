"""How sure an exit is, and who leaves.

One convention for every kind of score: higher is surer, and a sample leaves at the first exit whose score is
*greater* than that exit's threshold. Exits are counted from 1; who leaves nowhere gets the end's number.
"""

from typing import Literal

import numpy as np

from workers.base import ExitPlan

Score = Literal["probability", "entropy", "margin", "patience"]


def exit_scores(kind: Score, logits: np.ndarray, temperatures: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """(N, exits, classes) logits and (exits,) temperatures -> (N, exits) float32.

    probability: of the likeliest class, 0-1.
    entropy: 1 - H(p) / log(classes), 0-1.
    margin: between the two likeliest classes, 0-1.
    patience: how many exits in a row, this one included, give this exit's answer (Zhou et al. 2020,
    arXiv:2006.04152, whose counter starts at 0: a threshold t is their patience t).
    """
    if kind == "patience":
        return agreement(logits.argmax(axis=-1))
    scale = np.asarray(temperatures, np.float32)[:, None]
    scaled = logits.astype(np.float32) / scale
    scaled -= scaled.max(axis=-1, keepdims=True)
    log_p = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    p = np.exp(log_p)
    if kind == "probability":
        scores = p.max(axis=-1)
    elif kind == "entropy":
        scores = 1 + (p * log_p).sum(axis=-1) / np.float32(np.log(logits.shape[-1]))
    else:
        second, first = np.moveaxis(np.partition(p, -2, axis=-1)[..., -2:], -1, 0)
        scores = first - second
    return np.asarray(scores, np.float32)


def agreement(answers: np.ndarray) -> np.ndarray:
    """(N, exits) answers -> (N, exits) float32: 1 where an answer is new, else one more than before it."""
    runs = np.ones(answers.shape, np.float32)
    for exit_ in range(1, answers.shape[1]):
        runs[:, exit_] += np.where(answers[:, exit_] == answers[:, exit_ - 1], runs[:, exit_ - 1], 0)
    return runs


def never(kind: Score, exits: int) -> float:
    """The threshold that no score exceeds."""
    return float(exits) if kind == "patience" else 1.0


def leaving(scores: np.ndarray, thresholds: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """(N, exits) scores -> (N,) int64: the exit that each sample takes, 1 to exits + 1."""
    sure = scores > np.asarray(thresholds, np.float32)
    place = np.where(sure.any(axis=1), sure.argmax(axis=1), sure.shape[1])
    return np.asarray(place + 1, np.int64)


def leaving_together(
    scores: np.ndarray, thresholds: np.ndarray | tuple[float, ...], batch: int
) -> np.ndarray:
    """As `leaving`, when the samples come in batches that only leave when all their rows are sure."""
    least = [scores[start : start + batch].min(axis=0) for start in range(0, len(scores), batch)]
    return leaving(np.array(least), thresholds).repeat(batch)[: len(scores)]


def planned_scores(plan: ExitPlan, logits: np.ndarray) -> np.ndarray:
    """(N, exits + 1, classes) logits of all exits and the end -> (N, exits) scores."""
    exits = logits.shape[1] - 1
    temperatures = plan.temperatures or (1.0,) * (exits + 1)
    return exit_scores(plan.score, logits[:, :exits], temperatures[:exits])
