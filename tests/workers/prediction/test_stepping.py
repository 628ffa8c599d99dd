"""Steps of training, against a layer that sleeps."""

import time

import pytest
import torch
from torch import Tensor, fx, nn

from tests.workers.pruning.networks import SPEC
from workers.prediction import stepping
from workers.prediction.stepping import step_seconds

PAUSE_S, BATCH = 0.02, 4


class Slow(nn.Module):
    """A leaf of the graph, so that it really runs."""

    def forward(self, inputs: Tensor) -> Tensor:
        assert len(inputs) == BATCH
        time.sleep(PAUSE_S)
        return inputs


class Leaves(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Slow) or super().is_leaf_module(module, name)


def test_seconds_are_of_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models are timed in smaller batches: here 4 samples are as many as may be computed at once."""
    monkeypatch.setattr(stepping, "MOST_MACS", 4000)
    net = nn.Sequential(Slow(), nn.Flatten(), nn.Linear(64, 3))
    graph = fx.GraphModule(net, Leaves().trace(net))
    update, look = step_seconds(graph, SPEC, torch.device("cpu"), macs=1000)
    assert PAUSE_S / BATCH < look < 10 * PAUSE_S / BATCH
    assert PAUSE_S / BATCH < update < 10 * PAUSE_S / BATCH
    assert {parameter.device.type for parameter in graph.parameters()} == {"cpu"}
