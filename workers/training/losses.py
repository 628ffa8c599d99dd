"""What training minimises, and the watch over it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.errors import StepFailed

#: (logits (N, classes), labels (N,), inputs (N, C, H, W)) -> scalar. A teacher is a closure over
#: ``inputs``; randomness comes from torch's global generator, which the loop seeds per epoch.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Mean cross-entropy against (1 - s) * one-hot + s / classes (Szegedy et al. 2016, section 7)."""

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG001
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return loss


class EpochLosses:
    """The losses of one epoch; read in bunches, since every read waits for the device."""

    def __init__(self, epoch: int, learning_rate: float) -> None:
        self.epoch, self.learning_rate = epoch, learning_rate
        self.read: list[float] = []
        self.waiting: list[Tensor] = []

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take the two scalars of one batch."""
        self.waiting.append(torch.stack([loss.detach(), gradient_norm]))

    def check(self) -> None:
        """Raise StepFailed for the first batch whose loss or gradient is not finite."""
        if not self.waiting:
            return
        rows = torch.stack(self.waiting).cpu()
        self.waiting.clear()
        for (loss, norm), finite in zip(rows.tolist(), rows.isfinite().all(dim=1).tolist(), strict=True):
            if not finite:
                raise StepFailed(
                    f"training, epoch {self.epoch}, batch {len(self.read) + 1}",
                    f"the loss is {loss:g}, the norm of its gradient {norm:g}.",
                    f"Lower learning_rate from {self.learning_rate:g} to {self.learning_rate / 10:g}.",
                )
            self.read.append(loss)

    def mean(self) -> float:
        """Over all batches so far, which are checked first."""
        self.check()
        return sum(self.read) / len(self.read)
