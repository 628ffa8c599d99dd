"""What a reader of the result should know of a training."""

import torch

from workers.training.batches import uses_mixed_precision
from workers.training.settings import TrainingSettings
from workers.training.state import History


def course(history: History, settings: TrainingSettings, device: torch.device) -> str:
    """Goes on after the name of what trained: "kept epoch 3 of 5: …"."""
    epochs, before, after = len(history.points) - 1, history.start_accuracy, history.best_accuracy
    if history.best_epoch == 0:
        text = (
            f"kept the starting weights: their validation accuracy of {before:.2%} was better than after any "
            f"of {epochs} epochs."
        )
    else:
        text = (
            f"kept epoch {history.best_epoch} of {epochs}: validation accuracy {before:.2%} before, "
            f"{after:.2%} after."
        )
    if epochs < settings.epochs:
        text += f" It ended before epoch {settings.epochs}: {settings.patience} epochs had brought nothing."
    if uses_mixed_precision(settings, device):
        text += " It computed in bfloat16 (mixed precision)."
    return text
