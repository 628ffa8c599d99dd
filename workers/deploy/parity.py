"""The gate between a graph and its exported file: the same logits, the same answers, or no file."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from workers.base import Candidate, Frozen, Runtime
from workers.errors import GateFailed

#: Largest difference of a logit, relative to the largest logit, that other orders of addition explain.
TOLERANCE = 1e-3


class Parity(Frozen):
    """How far a file is from its graph."""

    samples: int
    #: Largest difference of a logit, relative to the largest logit.
    logit_error: float
    #: Share of samples with the same top-1 answer, leaving out ties within the tolerance.
    same_answer: float


def check_parity(
    candidate: Candidate, file: Path, batches: Iterable[torch.Tensor], runtime: Runtime
) -> Parity | None:
    """Compare on real inputs (N, C, H, W); None for an upload that never was a graph.

    Raises GateFailed above TOLERANCE or at the first differing answer.
    """
    if candidate.graph is None:
        return None
    session = runtime.open(file, threads=1)
    graph = candidate.graph.eval()
    expected, got = [], []
    with torch.no_grad():
        for inputs in batches:
            expected.append(graph(inputs).numpy())
            got.append(session.run(inputs.numpy()))
    parity = compare(np.concatenate(expected), np.concatenate(got))
    if parity.logit_error > TOLERANCE or parity.same_answer < 1:
        raise GateFailed(
            file.name,
            f"differs from the model it was made from: logits by {parity.logit_error:.2%}, "
            f"{1 - parity.same_answer:.2%} of the answers on {parity.samples} samples.",
            "Nothing was handed out. Please report the model's architecture and the versions of "
            "torch, onnx and onnxruntime.",
        )
    return parity


def compare(expected: np.ndarray, got: np.ndarray) -> Parity:
    """Logits (N, classes) against logits (N, classes); NaN, and logits of another shape, equal nothing."""
    if got.shape != expected.shape or not (np.isfinite(expected).all() and np.isfinite(got).all()):
        return Parity(samples=len(expected), logit_error=math.inf, same_answer=0.0)
    scale = max(float(np.abs(expected).max()), 1e-6)
    ranked = np.sort(expected, axis=1)
    tied = ranked[:, -1] - ranked[:, -2] <= 2 * TOLERANCE * scale
    same = (expected.argmax(1) == got.argmax(1)) | tied
    return Parity(
        samples=len(expected),
        logit_error=float(np.abs(expected - got).max()) / scale,
        same_answer=float(same.mean()),
    )
