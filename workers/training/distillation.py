"""What lets a trained network, the teacher, explain the samples to another one, the student.

A loss asks the teacher for its logits of the batch; these come from the network, or from a list that was made
of all training samples beforehand.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.base import Context, LabelledData, Progress, Split
from workers.training import checkpoints
from workers.training.batches import Feed, fitting_memory_format
from workers.training.losses import Loss
from workers.training.settings import TrainingSettings
from workers.training.soft_losses import SoftLoss, soft_cross_entropy
from workers.turns import training_turn

#: inputs (N, C, H, W) -> the teacher's logits (N, classes) on the same device, without gradients.
Teacher = Callable[[Tensor], Tensor]
#: A longer list of answers is not kept: the teacher is then asked for every batch.
MAX_ANSWERS_BYTES = 1 << 30


def distil(teacher: Teacher, soft: SoftLoss, weight: float) -> Loss:
    """(1 - w) * H(y, p) + w * soft(p, q, y), p student and q teacher logits, H the cross-entropy."""

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        return (1 - weight) * F.cross_entropy(logits, labels) + weight * soft(logits, teacher(inputs), labels)

    return loss


def hinton(teacher: nn.Module, *, temperature: float = 4.0, weight: float = 0.9) -> Loss:
    """(1 - w) * H(y, p) + w * T^2 * H(softmax(q / T), softmax(p / T)), p student and q teacher logits.

    Hinton et al. 2015 (arXiv:1503.02531), section 2. ``teacher`` stays as it is, see `Network`.
    """
    return distil(Network(teacher), soft_cross_entropy(temperature), weight)


class Network:
    """A teacher that is asked for every batch: a copy in eval mode, which follows the batches' device."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.memory_format: torch.memory_format | None = None
        self.last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()  # inference mode would not let the student's loss keep them
    def __call__(self, inputs: Tensor) -> Tensor:
        if self.memory_format is None:
            self.network.to(inputs.device)
            self.memory_format = fitting_memory_format(self.network, inputs)
            self.network.to(memory_format=self.memory_format)
        if self.last is None or self.last[0] is not inputs:  # mixup asks twice, for the labels of both
            self.last = inputs, self.network(inputs.to(memory_format=self.memory_format))
        return self.last[1]


class Answers:
    """A teacher's logits of every training sample, and the data that they belong to.

    As ``LabelledData`` it is the data that was given, and knows which samples the last batch held; as a
    teacher it gives their logits, whatever it is asked. So batches must be used as they come.
    """

    def __init__(self, data: LabelledData, logits: Tensor) -> None:
        self.data, self.logits = data, logits
        self.rows = torch.arange(0)

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.logits[self.rows].to(inputs.device)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    def labels(self, split: Split) -> np.ndarray:
        return self.data.labels(split)

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:
        return self.data.order(split, shuffle)

    def batches(
        self, split: Split, batch_size: int, *, shuffle: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.data.order(split, shuffle)
        chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        batches = self.data.batches(split, batch_size, shuffle=shuffle, augment=augment)
        for rows, batch in zip(chunks, batches, strict=True):
            self.rows = torch.from_numpy(rows)
            yield batch


def learn_from(
    network: nn.Module, context: Context, settings: TrainingSettings
) -> tuple[Teacher, LabelledData]:
    """The teacher, and the data to train the student on.

    Where every epoch shows the same pictures, the network is asked once per picture. The answers stay in
    ``context.scratch``, so that training goes on with the same bits after a kill.
    """
    data = context.data
    size = 4 * len(data.labels("train")) * len(data.classes)
    if settings.augmentation != "none" or settings.mixup or size > MAX_ANSWERS_BYTES:
        return Network(network), data
    key = checkpoints.fingerprint(network, settings, context)
    saved = checkpoints.load(context.scratch, key, torch.device("cpu"))
    if saved is None:
        saved = {"logits": _asked(network, context, settings)}
        with training_turn():
            checkpoints.save(context.scratch, key, saved)
    answers = Answers(data, saved["logits"])
    return answers, answers


def _asked(network: nn.Module, context: Context, settings: TrainingSettings) -> Tensor:
    """(N, classes) logits of the training split, in its order."""
    teacher = Network(network)
    feed = Feed(context.data, settings, context.device)
    logits: list[Tensor] = []
    with closing(feed.whole("train")) as batches:
        for inputs, _ in batches:
            logits.append(teacher(inputs).cpu())
            context.tell(Progress("Asking the teacher", 0.0))
    return torch.cat(logits)


def accuracy_of(network: nn.Module, context: Context, settings: TrainingSettings) -> float:
    """Share of the validation split that a network gets right; it stays as it is."""
    teacher, right = Network(network), 0
    with closing(Feed(context.data, settings, context.device).whole("validation")) as batches:
        for inputs, labels in batches:
            right += int((teacher(inputs).argmax(dim=1) == labels).sum())
    return right / len(context.data.labels("validation"))
