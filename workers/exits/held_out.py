"""Half of the validation samples, kept from everything but the test of a promise.

A promise holds for a model and candidates that the testing samples had no part in (see `guarantee`): not in
the thresholds, and not in which epoch, layer or writer a step before them took.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from workers.base import LabelledData, Split


def halves(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of so many validation samples those that propose, and those that test; both rising."""
    rows = np.random.default_rng(seed).permutation(samples)
    return np.sort(rows[::2]), np.sort(rows[1::2])


class WithoutHeldOut:
    """The same ``LabelledData``, with the proposing half alone as validation."""

    def __init__(self, data: LabelledData, seed: int) -> None:
        self.data = data
        self.rows, _ = halves(len(data.labels("validation")), seed)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    def labels(self, split: Split) -> np.ndarray:
        labels = self.data.labels(split)
        return labels[self.rows] if split == "validation" else labels

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:
        order = self.data.order(split, shuffle)
        if split != "validation":
            return order
        return np.searchsorted(self.rows, order[np.isin(order, self.rows)])

    def batches(
        self, split: Split, batch_size: int, *, shuffle: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self.data.batches(split, batch_size, shuffle=shuffle, augment=augment)
        if split != "validation":
            return batches
        seen = torch.from_numpy(np.isin(self.data.order(split, shuffle), self.rows))
        return _only(batches, seen, batch_size)


def _only(
    batches: Iterator[tuple[Tensor, Tensor]], seen: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches of the samples that are seen, and the rest. seen: (N,) bool, in the order of `batches`."""
    waiting: list[tuple[Tensor, Tensor]] = []
    first = 0
    for inputs, labels in batches:
        mine = seen[first : first + len(labels)]
        first += len(labels)
        waiting.append((inputs[mine], labels[mine]))
        if sum(len(found) for _, found in waiting) >= batch_size:
            inputs, labels = _joined(waiting)
            yield inputs[:batch_size], labels[:batch_size]
            waiting = [(inputs[batch_size:], labels[batch_size:])]
    if any(len(labels) for _, labels in waiting):
        yield _joined(waiting)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    inputs, labels = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(labels)
