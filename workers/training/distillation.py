"""Losses that let a trained network, the teacher, explain the samples to another one, the student."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.training.batches import fitting_memory_format
from workers.training.losses import Loss


def hinton(teacher: nn.Module, *, temperature: float = 4.0, weight: float = 0.9) -> Loss:
    """(1 - w) * H(y, p) + w * T^2 * H(softmax(q / T), softmax(p / T)), p student and q teacher logits.

    Hinton et al. 2015 (arXiv:1503.02531), section 2; H is the cross-entropy, averaged over the batch.
    ``teacher`` stays as it is: a copy in eval mode follows the batches to their device.
    """
    ask = Teacher(teacher)

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        targets = F.softmax(ask(inputs) / temperature, dim=1)
        soft = temperature**2 * F.cross_entropy(logits / temperature, targets)
        return (1 - weight) * F.cross_entropy(logits, labels) + weight * soft

    return loss


class Teacher:
    """Gives the logits (N, classes) of a network for a batch (N, C, H, W), without gradients."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.memory_format: torch.memory_format | None = None

    @torch.no_grad()  # inference mode would not let the student's loss keep them
    def __call__(self, inputs: Tensor) -> Tensor:
        if self.memory_format is None:
            self.network.to(inputs.device)
            self.memory_format = fitting_memory_format(self.network, inputs)
            self.network.to(memory_format=self.memory_format)
        logits: Tensor = self.network(inputs.to(memory_format=self.memory_format))
        return logits
