"""One batch in the place of a dataset, for times that do not depend on what is seen."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.base import Split


@dataclass(frozen=True)
class OneBatch:
    """inputs: (N, …), the same for every split; nothing is right or wrong about them."""

    inputs: Tensor
    classes: tuple[str, ...] = ()

    def labels(self, split: Split) -> np.ndarray:  # noqa: ARG002
        return np.zeros(len(self.inputs), np.int64)

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:  # noqa: ARG002
        return np.arange(len(self.inputs))

    def batches(
        self,
        split: Split,  # noqa: ARG002
        batch_size: int,  # noqa: ARG002
        *,
        shuffle: int | None = None,  # noqa: ARG002
        augment: str = "none",  # noqa: ARG002
    ) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.inputs, torch.zeros(len(self.inputs), dtype=torch.int64)
