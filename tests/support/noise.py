"""In the place of a dataset, for networks whose time does not depend on what they see."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from workers.base import Split

SAMPLES = 16


@dataclass(frozen=True)
class Noise:
    """shape: of a sample."""

    shape: tuple[int, ...]
    classes: tuple[str, ...] = tuple(map(str, range(10)))

    def labels(self, split: Split) -> np.ndarray:  # noqa: ARG002
        return np.zeros(SAMPLES, np.int64)

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:  # noqa: ARG002
        return np.arange(SAMPLES)

    def batches(
        self,
        split: Split,  # noqa: ARG002
        batch_size: int,
        *,
        shuffle: int | None = None,  # noqa: ARG002
        augment: str = "none",  # noqa: ARG002
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(SAMPLES // batch_size or 1):
            yield torch.randn(batch_size, *self.shape, generator=generator), torch.zeros(batch_size).long()
