"""Building tables in seconds: fewer and shorter."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.workers.prediction.tables import TARGET
from tests.workers.pruning.networks import model_of
from workers.base import Candidate, Place, Progress
from workers.prediction import networks, stepping, timing
from workers.prediction.building import build
from workers.prediction.networks import Tell
from workers.prediction.table import Table
from workers.runtimes.onnxruntime import OnnxRuntime

PLACE, CPU = Place(OnnxRuntime(), TARGET), torch.device("cpu")


def model_with(net: type[nn.Module], seed: int) -> Candidate:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_of(net())


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (networks, "UNIFORM", (0.5,)),
        (networks, "RANDOM", 1),
        (networks, "INT8", 1),
        (networks, "ODD", (0.45,)),
        (networks, "OTHERS", ()),
        (networks, "THIN", (0.5,)),
        (timing, "LATENCY_SECONDS", 0.01),
        (timing, "PROFILE_SECONDS", 0.01),
        (stepping, "TRIES", 1),
    ):
        monkeypatch.setattr(module, name, value)


def built(model: Candidate, folder: Path, tell: Tell = lambda _: None) -> Table:
    return build(model, "k", PLACE, CPU, folder, tell)


class BrokenOff(Exception):
    pass


def until(text: str) -> Tell:
    """Breaks off where that is told."""

    def tell(progress: Progress) -> None:
        if text in progress.text:
            raise BrokenOff

    return tell
