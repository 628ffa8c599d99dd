"""What the training of exits minimises: every exit on the labels, on a teacher and on the end."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from workers.training.distillation import Teacher
from workers.training.losses import Loss
from workers.training.soft_losses import soft_cross_entropy

#: (logits (N, classes), labels (N,)) -> scalar
LabelLoss = Callable[[Tensor, Tensor], Tensor]
LabelLossName = Literal["cross_entropy", "binary_cross_entropy"]
Weighting = Literal["rising", "equal"]


def exit_weights(exits: int, weighting: Weighting = "rising") -> list[float]:
    """ω_m = m / M for the M - 1 exits and the end, or 1; the end counts as in training without exits."""
    if weighting == "equal":
        return [1.0] * exits
    return [number / exits for number in range(1, exits + 1)]


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-Σ_c [y_c log σ(z_c) + (1 - y_c) log(1 - σ(z_c))], mean over the samples: each class a question."""
    targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


LABEL_LOSSES: dict[LabelLossName, LabelLoss] = {
    "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def exit_loss(
    label_loss: LabelLossName,
    *,
    teacher: Teacher | None = None,
    distillation: float = 0.0,
    self_distillation: float = 0.0,
    temperature: float = 4.0,
    weighting: Weighting = "rising",
) -> Loss:
    """Σ_m ω_m [(1 - λ) L(y, p_m) + λ T² H(q, p_m) + μ T² H(p_M, p_m)] over logits (N, M, classes).

    H: cross-entropy of softmax(· / T), as in Hinton et al. 2015 (arXiv:1503.02531). q: the teacher's logits,
    λ distillation. p_M: those of the end, which learns nothing from being asked and not from itself;
    μ self_distillation (Phuong & Lampert 2019). Weights ω_m: `exit_weights`.
    """
    labelled, soft = LABEL_LOSSES[label_loss], soft_cross_entropy(temperature)
    share = distillation if teacher is not None else 0.0

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        exits = logits.unbind(dim=1)
        end = exits[-1].detach()
        taught = None if teacher is None else teacher(inputs)
        total = logits.new_zeros(())
        weights = exit_weights(len(exits), weighting)
        for number, (weight, own) in enumerate(zip(weights, exits, strict=True), start=1):
            part = (1 - share) * labelled(own, labels)
            if taught is not None:
                part = part + share * soft(own, taught, labels)
            if self_distillation and number < len(exits):
                part = part + self_distillation * soft(own, end, labels)
            total = total + weight * part
        return total

    return loss
