"""What files answer on validation samples, and the gate that compares them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workers.base import Context, Session
from workers.errors import GateFailed
from workers.host import logical_cores
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.turns import training_turn

BATCH_SIZE = 64
GATE_SAMPLES = 512
#: Two logits that are closer than this many times the rounding noise may swap by rounding elsewhere.
TIED_NOISES = 4.0


def logits(file: Path, context: Context, *, samples: int | None = None) -> np.ndarray:
    """(N, classes), with exits (N, exits + 1, classes), of the first validation `samples`, None for all."""
    session = context.runtime.open(file, threads=logical_cores())
    return np.concatenate(list(_answers(session, context, samples)))


def _answers(session: Session, context: Context, samples: int | None) -> Iterator[np.ndarray]:
    left = len(context.data.labels("validation")) if samples is None else samples
    for inputs, _ in context.data.batches("validation", BATCH_SIZE):
        with training_turn():
            yield session.run(inputs.numpy()[:left])
        left -= len(inputs)
        if left <= 0:
            return


def accuracy(answers: np.ndarray, context: Context) -> np.ndarray:
    """(exits + 1,): shares of the validation samples that are right, at each exit and at the end."""
    labels = context.data.labels("validation")[: len(answers)]
    right = labels == answers.argmax(axis=-1).T
    return np.atleast_1d(right.mean(axis=-1))


def divergence(expected: np.ndarray, got: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of softmax(got) from softmax(expected); (..., classes) logits."""
    first, second = _log_softmax(expected), _log_softmax(got)
    return float((np.exp(first) * (first - second)).sum(axis=-1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def check_saturation(file: Path, float_file: Path, context: Context) -> None:
    """The integer kernels must give the answers that the file's own numbers give in float.

    Without optimizations the runtime does the arithmetic of a QDQ file in float, where nothing overflows.
    Raises GateFailed at the first differing answer that is no tie.
    """
    exact = _reference(float_file, context)
    plain = _reference(file, context, optimize=False)
    fast = _reference(file, context)
    changed = changed_answers(exact, plain, fast)
    if changed.any():
        error = float(np.abs(fast - plain).max() / max(np.abs(plain).max(), 1e-6))
        raise GateFailed(
            "quantization",
            f"{changed.sum()} of {changed.size} answers change when the runtime optimises the file (logits "
            f"by up to {error:.1%}): its integer arithmetic overflows on this processor.",
            "Nothing was handed out. Use weight_bits: 7, or mode: fp16.",
        )


def _reference(file: Path, context: Context, *, optimize: bool = True) -> np.ndarray:
    """Logits in ONNX Runtime: what is handed out is its file, and other runtimes optimise as they like."""
    session = OnnxRuntime().open(file, threads=logical_cores(), optimize=optimize)
    return np.concatenate(list(_answers(session, context, GATE_SAMPLES)))


def changed_answers(exact: np.ndarray, plain: np.ndarray, fast: np.ndarray) -> np.ndarray:
    """(...,) bool: where `fast` has another first guess than `plain`, leaving out ties; all (..., classes).

    `plain` differs from `exact` by the rounding that was asked for and by nothing else: this tells how far
    apart two logits must be not to swap by rounding.
    """
    noise = float(np.sqrt(np.mean((plain - exact) ** 2)))
    ranked = np.sort(plain, axis=-1)
    tied = ranked[..., -1] - ranked[..., -2] <= TIED_NOISES * noise
    differs = plain.argmax(axis=-1) != fast.argmax(axis=-1)
    return np.asarray(differs & ~tied | ~np.isfinite(fast).all(axis=-1))
