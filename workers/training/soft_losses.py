"""How far a student's logits p are from a teacher's, q, by four papers; both are (N, classes)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: (student logits (N, classes), teacher logits (N, classes), labels (N,)) -> scalar
SoftLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

#: What logits and probabilities are divided by where they are all alike.
TINY = 1e-8


def soft_cross_entropy(temperature: float) -> SoftLoss:
    """T^2 * H(softmax(q / T), softmax(p / T)): Hinton et al. 2015 (arXiv:1503.02531), section 2."""

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
        targets = F.softmax(teacher / temperature, dim=1)
        return temperature**2 * F.cross_entropy(student / temperature, targets)

    return loss


def standardised(temperature: float) -> SoftLoss:
    """T^2 * KL of softmax(Z(q) / T) to softmax(Z(p) / T), Z(x) = (x - mean x) / std x over the classes.

    Sun et al. 2024 (arXiv:2403.01427), algorithms 1 and 2: only the teacher's ranking and relative distances
    are learned, not its range.
    """

    def z_score(logits: Tensor) -> Tensor:
        centred = logits - logits.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + TINY**2).sqrt()

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
        p, q = (F.log_softmax(z_score(logits) / temperature, dim=1) for logits in (student, teacher))
        return temperature**2 * F.kl_div(p, q, reduction="batchmean", log_target=True)

    return loss


def decoupled(temperature: float, *, target: float = 1.0, others: float = 8.0) -> SoftLoss:
    """T^2 * (target * TCKD + others * NCKD): Zhao et al. 2022, DKD (arXiv:2203.08679), equations 5-7.

    TCKD is the KL divergence of (label, not label), NCKD that among the other classes, which in Hinton's loss
    counts the less the surer the teacher is. Weights of the paper's CIFAR-100 experiments.
    """

    def split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of label and rest (N, 2), and among the other classes (N, classes - 1)."""
        everything = F.log_softmax(logits / temperature, dim=1)
        is_other = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels[:, None], False)
        rest = everything[is_other].view(len(logits), -1)
        both = torch.cat([everything.gather(1, labels[:, None]), rest.logsumexp(1, keepdim=True)], dim=1)
        return both, F.log_softmax(rest, dim=1)

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        parts = zip(split(student, labels), split(teacher, labels), strict=True)
        tckd, nckd = (F.kl_div(p, q, reduction="batchmean", log_target=True) for p, q in parts)
        return temperature**2 * (target * tckd + others * nckd)

    return loss


def dist(temperature: float) -> SoftLoss:
    """T^2 * (mean of 1 - r over samples + mean of 1 - r over classes), r Pearson's correlation.

    Huang et al. 2022, DIST (arXiv:2205.10536), equations 6-9, on softmax(x / T): rows ask for the teacher's
    ranking of the classes of each sample, columns for that of the batch's samples in each class.
    """

    def distance(p: Tensor, q: Tensor) -> Tensor:
        """1 - r of each row, averaged."""
        p, q = p - p.mean(dim=1, keepdim=True), q - q.mean(dim=1, keepdim=True)
        return 1 - F.cosine_similarity(p, q, dim=1, eps=TINY).mean()

    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
        p, q = F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
        return temperature**2 * (distance(p, q) + distance(p.T, q.T))

    return loss


SOFT_LOSSES: dict[str, Callable[[float], SoftLoss]] = {
    "hinton": soft_cross_entropy,
    "standardised": standardised,
    "dkd": decoupled,
    "dist": dist,
}
