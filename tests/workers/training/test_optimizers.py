import math
from typing import Literal

import pytest
import torch
from torch import nn

from workers.training.optimizers import make_optimizer, make_schedule
from workers.training.settings import TrainingSettings


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_decay_pulls_weights_only(optimizer: Literal["sgd", "adamw"]) -> None:
    """Without any gradient, what changes is what decays."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LayerNorm(2), nn.Linear(2, 2)
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, TrainingSettings(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)).step()
    changed = {
        name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert changed == {"0.weight", "4.weight"}


def test_parameters_without_gradients_stay_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    groups = make_optimizer(model, TrainingSettings()).param_groups
    assert [parameter for group in groups for parameter in group["params"]] == [model.weight]


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_warm_up_then_cosine_to_zero(steps: int) -> None:
    optimizer = make_optimizer(nn.Linear(1, 1), TrainingSettings(learning_rate=0.4))
    schedule = make_schedule(optimizer, TrainingSettings(learning_rate=0.4), steps)
    warm_up = max(1, round(steps / 20))
    for step in range(steps):
        if step < warm_up:
            expected = 0.4 * (0.1 + 0.9 * step / warm_up)
        else:
            expected = 0.2 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
        assert schedule.get_last_lr() == pytest.approx([expected, expected])
        optimizer.step()
        schedule.step()
