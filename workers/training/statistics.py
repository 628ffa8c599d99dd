"""BatchNorm statistics after the weights changed."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from workers.base import Context
from workers.turns import training_turn

BATCH, BATCHES = 64, 32


def recalibrate(model: nn.Module, context: Context) -> None:
    """Take running mean and variance of every BatchNorm anew, from training samples; in place.

    The mean over up to 2,048 samples, in batches of 64. No weight changes.
    """
    with torch.random.fork_rng(devices=[]):  # dropout is on meanwhile
        torch.manual_seed(context.seed)
        update_bn(_samples(context), model)


def _samples(context: Context) -> Iterator[Tensor]:
    """A batch of one is left out: BatchNorm cannot take its variance."""
    batches = context.data.batches("train", BATCH, shuffle=context.seed)
    for inputs, _ in itertools.islice(batches, BATCHES):
        if len(inputs) > 1:
            with training_turn():
                yield inputs
