"""Optimiser and learning-rate schedule from the settings."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from workers.training.settings import TrainingSettings


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


def make_schedule(optimizer: Optimizer, settings: TrainingSettings, steps: int) -> LRScheduler:
    """Linear warm-up from a tenth, then cosine to zero; or one cycle. Step it once per batch.

    One cycle (Smith & Topin 2017, arXiv:1708.07120): cosine from a 25th to the peak over 30 % of ``steps``,
    then to almost zero, while the momentum goes from 0.95 to 0.85 and back.
    """
    if settings.schedule == "one_cycle":
        return OneCycleLR(optimizer, max_lr=settings.learning_rate, total_steps=max(2, steps))
    if settings.warm_up == 0:
        return CosineAnnealingLR(optimizer, T_max=steps)
    warm_up = max(1, round(settings.warm_up * steps))
    return SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_factor=0.1, total_iters=warm_up),
            CosineAnnealingLR(optimizer, T_max=max(1, steps - warm_up)),
        ],
        milestones=[warm_up],
    )
