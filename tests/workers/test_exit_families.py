"""Families of networks from heads to one file that stops early; what it answers is computed again by hand.

With random weights the answers are noise, so exits and logits are compared with those of the trained archive.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.support import exits
from tests.workers.test_families import CLASSES, pictures
from workers.base import Candidate, ImagePreprocessing, ModelSpec, Target
from workers.deploy.one_file import set_thresholds
from workers.graph.archive import trace, write_archive
from workers.graph.importing import import_model, open_model
from workers.pipeline import Job, run
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import Stage

FAMILIES = (
    "resnet18 mobilenet_v3_small efficientnet_b0 regnet_y_400mf densenet121 vgg11_bn convnext_tiny "
    "vit_b_16 swin_t"
).split()
SIDE = 64
RECIPE = """
steps:
  - {method: early_exit, exits: 2, max_drop: 20, head_epochs: 1, epochs: 1, batch_size: 8}
"""


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """No time matters here, and nobody else on this host has to wait."""
    with exits.quickly():
        yield


def of_torchvision(name: str, folder: Path) -> Candidate:
    torch.manual_seed(0)
    options = {"image_size": SIDE} if name.startswith("vit") else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options).eval()
    for layer in model.modules():  # torchvision's vision transformers begin with a head of zeros
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.02)
    looks = ImagePreprocessing(channels=3, height=SIDE, width=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = ModelSpec(name=name, sha256="0" * 64, architecture=name, classes=CLASSES, preprocessing=looks)
    write_archive(trace(model, looks), folder / "model.pt2")
    return open_model(folder / "model.pt2", spec)


class Own(nn.Module):
    """Of nobody's library: two branches that are joined, a gate, and more channels at every block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.wide = nn.ModuleList(nn.Conv2d(16 + 16 * n, 16, 3, padding=1) for n in range(4))
        self.gate = nn.ModuleList(nn.Conv2d(16 + 16 * n, 16, 1) for n in range(4))
        self.norm = nn.ModuleList(nn.BatchNorm2d(32 + 16 * n) for n in range(4))
        self.answer = nn.Linear(80, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for wide, gate, norm in zip(self.wide, self.gate, self.norm, strict=True):
            x = torch.relu(norm(torch.cat([x, wide(x) * torch.sigmoid(gate(x))], dim=1)))
        return self.answer(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def uploaded(folder: Path) -> Candidate:
    """As a user exports and uploads it."""
    torch.manual_seed(0)
    dim = torch.export.Dim("N", min=1)
    program = torch.export.export(Own().eval(), (torch.zeros(2, 3, SIDE, SIDE),), dynamic_shapes=({0: dim},))
    torch.export.save(program, folder / "own.pt2")
    (folder / "kept").mkdir()
    return import_model(folder / "own.pt2", folder / "kept")


def with_exits(model: Candidate, folder: Path) -> Stage:
    job = Job(
        model=model, data=pictures(SIDE), dataset="d" * 64, recipe=parse_recipe(RECIPE, "exits"),
        folder=folder / "stages", runtime=OnnxRuntime(), target=Target(host="here"),
        device=torch.device("cpu"), seed=0,
    )  # fmt: skip
    return run(job).stages[-1]


def check(stage: Stage, folder: Path) -> None:
    """The file leaves where the archive's logits say, at thresholds that divide the samples."""
    report = json.loads(stage.file.with_name("exits.json").read_text())
    assert stage.parity is not None
    assert (stage.parity.samples, stage.parity.same_answer) == (16, 1)
    assert 1 <= len(report["cuts"]) <= 2
    assert len(report["path_ms"]) == len(report["cuts"]) + 1
    inputs = pictures(SIDE).splits["test"][0]
    with torch.no_grad():
        staged = torch.export.load(stage.file.with_name("model.pt2")).module()(inputs).numpy()
    scaled = staged[:, :-1] / np.array(report["temperatures"][:-1])[:, None]
    odds = np.exp(scaled - scaled.max(axis=2, keepdims=True))
    scores = odds.max(axis=2) / odds.sum(axis=2)
    halves = [float(np.sort(line)[7:9].mean()) for line in scores.T]  # none lies near its threshold
    file = Path(shutil.copyfile(stage.file, folder / "moved.onnx"))
    set_thresholds(file, halves)
    session = ort.InferenceSession(file)
    for picture, said, score in zip(inputs.numpy(), staged, scores, strict=True):
        place = next((n for n, half in enumerate(halves) if score[n] > half), len(halves))
        logits, taken = session.run(["logits", "exit"], {"input": picture[None]})
        if min(abs(score - halves)) > 1e-5:
            assert int(taken[0]) == place + 1
            np.testing.assert_allclose(logits[0], said[place], rtol=1e-3, atol=1e-3 * abs(staged).max())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_stops_early_in_one_file(name: str, tmp_path: Path) -> None:
    check(with_exits(of_torchvision(name, tmp_path), tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_uploaded_architecture_of_ones_own_stops_early_in_one_file(tmp_path: Path) -> None:
    check(with_exits(uploaded(tmp_path), tmp_path), tmp_path)
