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
@pytest.mark.parametrize("share", [0.05, 0.3, 0.0])
def test_warm_up_then_cosine_to_zero(steps: int, share: float) -> None:
    settings = TrainingSettings(learning_rate=0.4, warm_up=share)
    optimizer = make_optimizer(nn.Linear(1, 1), settings)
    schedule = make_schedule(optimizer, settings, steps)
    warm_up = max(1, round(share * steps)) if share else 0
    for step in range(steps):
        if step < warm_up:
            expected = 0.4 * (0.1 + 0.9 * step / warm_up)
        else:
            expected = 0.2 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
        assert schedule.get_last_lr() == pytest.approx([expected, expected])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_one_cycle_rises_and_falls_once(optimizer: Literal["sgd", "adamw"], steps: int) -> None:
    """Cosines from a 25th to the peak at 30 % and down to a 250,000th; momentum the other way round."""
    settings = TrainingSettings(optimizer=optimizer, learning_rate=0.4, schedule="one_cycle")
    made = make_optimizer(nn.Linear(1, 1), settings)
    schedule = make_schedule(made, settings, steps)
    top, last = 0.3 * max(2, steps) - 1, max(2, steps) - 1
    for step in range(steps):
        if step <= top:
            share = 0.5 * (1 - math.cos(math.pi * step / top))
            low = 0.4 / 25
        else:
            share = 0.5 * (1 + math.cos(math.pi * (step - top) / (last - top)))
            low = 0.4 / 25e4
        if top > 0:
            assert schedule.get_last_lr() == pytest.approx([low + share * (0.4 - low)] * 2)
            group = made.param_groups[0]
            momentum = group["momentum"] if optimizer == "sgd" else group["betas"][0]
            assert momentum == pytest.approx(0.95 - share * 0.1)
        made.step()
        schedule.step()
