"""Optimiser and learning-rate schedule from the settings."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from workers.training.settings import TrainingSettings

WARM_UP_SHARE = 0.05


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> Optimizer:
    """SGD with Nesterov momentum or AdamW over the parameters that require gradients.

    Vectors and scalars, which are the norms and biases, get no weight decay.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.learning_rate)
    return SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)


def make_schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Linear warm-up from a tenth over 5 % of ``steps``, then cosine to zero; step it once per batch."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    return SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_factor=0.1, total_iters=warm_up),
            CosineAnnealingLR(optimizer, T_max=max(1, steps - warm_up)),
        ],
        milestones=[warm_up],
    )
