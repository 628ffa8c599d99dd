"""The gate of a file with exits over the validation samples: all, or as many as there is time for."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from workers.base import ExitPlan, LabelledData, Progress
from workers.deploy.exit_parity import ExitParity, check_exits
from workers.exits.executor import Segment, all_logits
from workers.turns import training_turn

BATCH_SIZE = 64
#: For a net that takes longer, see `workers.deploy.exit_parity.LEAST_SAMPLES`.
GATE_SECONDS = 300.0

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def check_on_validation(
    file: Path, plan: ExitPlan, batches: Batches, of: int, tell: Callable[[Progress], None]
) -> tuple[ExitParity, tuple[str, ...]]:
    """of: samples in all batches. Gives what was found, and a note where not all were compared.

    Raises GateFailed.
    """
    parity = check_exits(file, _telling(batches, of, tell), plan, seconds=GATE_SECONDS)
    if parity.samples == of:
        return parity, ()
    note = (
        f"The file was compared with its segments on {parity.samples:,} of {of:,} validation samples, as "
        f"many as {GATE_SECONDS / 60:.0f} minutes allow."
    )
    return parity, (note,)


def said_by(segments: Sequence[Segment], data: LabelledData) -> Batches:
    """The validation samples, and what the segments say about them."""
    for inputs, _ in data.batches("validation", BATCH_SIZE):
        with training_turn():
            logits = all_logits(segments, [inputs.numpy()])
        yield inputs.numpy(), logits


def said_before(logits: np.ndarray, data: LabelledData, clear: np.ndarray | None = None) -> Batches:
    """The validation samples and their kept logits, (N, exits + 1, classes). clear: (N,), which of them."""
    clear, first = np.ones(len(logits), bool) if clear is None else clear, 0
    for inputs, _ in data.batches("validation", BATCH_SIZE):
        rows = slice(first, first + len(inputs))
        first += len(inputs)
        if clear[rows].any():
            yield inputs.numpy()[clear[rows]], logits[rows][clear[rows]].astype(np.float32)


def _telling(batches: Batches, of: int, tell: Callable[[Progress], None]) -> Batches:
    done = 0
    for inputs, logits in batches:
        tell(Progress("comparing the file with its segments", done / of))
        done += len(inputs)
        yield inputs, logits
