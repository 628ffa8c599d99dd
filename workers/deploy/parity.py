"""The gate between a graph and its exported file: the same logits, the same answers, or no file."""

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from workers.base import Candidate, Frozen, LabelledData, Runtime
from workers.deploy.weights import weight_types
from workers.errors import GateFailed, ParedownError

#: Largest difference of a logit, relative to the largest logit, that other orders of addition explain.
TOLERANCE = 1e-3
PARITY_SAMPLES = 256
#: Of the answers of a file whose numbers are rounded, which every runtime does at other places: so many must
#: be the same.
ALIKE = 0.98


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


def parity_inputs(data: LabelledData) -> Iterator[torch.Tensor]:
    """Real inputs to compare on, (N, C, H, W)."""
    for inputs, _ in itertools.islice(data.batches("validation", 64), PARITY_SAMPLES // 64):
        yield inputs


def why_not(
    file: Path, runtime: Runtime, reference: Runtime, batches: Iterable[torch.Tensor], *, one_by_one: bool
) -> str | None:
    """Why numbers of a file in `runtime` cannot be believed, in a sentence; None where they can.

    It must be able to run the file, and give what the file gives in `reference`. one_by_one: for files with
    early exits, where a batch would leave together.
    """
    answers: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    try:
        sessions = [made.open(file, threads=1) for made in (reference, runtime)]
        for inputs in batches:
            for part in torch.split(inputs, 1 if one_by_one else len(inputs)):
                for session, found in zip(sessions, answers, strict=True):
                    found.append(session.run(part.numpy()))
    except ParedownError as error:
        return error.what
    expected, got = map(np.concatenate, answers)
    if got.shape != expected.shape:
        why = "; only the exported file stops early" if one_by_one else ""
        shapes = f"{list(got.shape[1:])} numbers per sample, the file gives {list(expected.shape[1:])}"
        return f"{runtime.title} gives {shapes}{why}."
    parity = compare(expected, got)
    exact = set(weight_types(file)) == {"float32"}
    if parity.same_answer >= (1 if exact else ALIKE) and (parity.logit_error <= TOLERANCE or not exact):
        return None
    return (
        f"{runtime.title} gives other answers than the file: logits differ by {parity.logit_error:.1%}, "
        f"{1 - parity.same_answer:.1%} of the answers on {parity.samples} samples."
    )


def compare(expected: np.ndarray, got: np.ndarray) -> Parity:
    """Logits (N, classes) against logits (N, classes); NaN, other shapes and no logits equal nothing."""
    if (
        not len(expected)
        or got.shape != expected.shape
        or not (np.isfinite(expected).all() and np.isfinite(got).all())
    ):
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
