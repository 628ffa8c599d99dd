from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.support.arrays import context, easy_data, small_net
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings
from workers.training.zeros import zeros_kept


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adamw", 0.01)])
def test_zeros_stay_zeros_and_everything_else_moves(
    tmp_path: Path, optimizer: Literal["sgd", "adamw"], rate: float
) -> None:
    """Momentum, both moments, weight decay and clipping are on."""
    net = small_net().requires_grad_(True)
    weights = {name: weight for name, weight in net.named_parameters() if weight.dim() > 1}
    with torch.no_grad():
        for weight in weights.values():
            weight.masked_fill_(torch.rand_like(weight) < 0.6, 0)
        net.get_parameter("3.bias").zero_()  # not a pruned weight
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    settings = TrainingSettings(
        epochs=3, batch_size=16, optimizer=optimizer, learning_rate=rate, weight_decay=0.1
    )
    with zeros_kept(net):
        history = train(net, context(tmp_path, data=easy_data()), settings=settings, loss=cross_entropy())
    assert history.best_epoch > 0
    for name, parameter in net.named_parameters():
        zeros = before[name] == 0
        if name in weights:
            assert zeros.float().mean() > 0.4
            assert torch.equal(parameter == 0, zeros)
        assert (parameter != before[name])[~zeros].all() or name not in weights
    assert net.get_parameter("3.bias").all()


def test_nothing_is_left_behind_and_zeros_by_chance_may_move(tmp_path: Path) -> None:
    net = small_net().requires_grad_(True)
    with torch.no_grad():
        net.get_parameter("3.weight")[0] = 0
    with zeros_kept(net):
        pass
    with zeros_kept(net, wanted=False):
        train(net, context(tmp_path), settings=TrainingSettings(epochs=1), loss=cross_entropy())
    assert net.get_parameter("3.weight").all()
