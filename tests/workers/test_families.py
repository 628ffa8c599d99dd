"""Ten torchvision families through the whole chain prune → recover → int8 → ONNX.

With random weights the answers are noise, so logits are compared: float files with their graphs (the parity
gate), the int8 file with the float file before it. Every run carries two of the light families, which ones
changes with the commit; `-m slow` carries them all.
"""

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torchvision

from tests.support.arrays import ArrayData
from workers import turns
from workers.base import Candidate, ImagePreprocessing, ModelSpec, Split, Target
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.measures import latency
from workers.pipeline import Job, run
from workers.recipe import parse_recipe
from workers.runtimes.onnxruntime import OnnxRuntime

LIGHT = "resnet18 mobilenet_v2 mobilenet_v3_small efficientnet_b0".split()
#: The others take longer than the 40 s of a processor that a run has for one of them (regnet_y_400mf 80 s and
#: googlenet 94 s beside other tests), or more than 3 GB: vit_b_16 5.6 for following its channels, vgg11 8.
FAMILIES = [*LIGHT, "regnet_y_400mf", "googlenet", "densenet121", "convnext_tiny", "vgg11", "vit_b_16"]
CLASSES = 4
#: Of the int8 logits against the float ones, in dB; unrelated logits give 0 or less. Deep networks without
#: training amplify rounding: EfficientNet comes to 4 dB, ResNet to 30.
LEAST_SQNR = 3.0
RECIPE = """
steps:
  - {method: structured_pruning, amount: 0.3, recovery: none}
  - {method: distillation, student: current, epochs: 1, batch_size: 8, learning_rate: 0.0001}
  - {method: quantization, mode: static, max_drop: 100, keep_faster: false, samples: 16}
"""


def _commit() -> int:
    """A number that changes with every commit; 0 outside of a repository."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return int(found or "0", 16)


def _families() -> list[object]:
    first = 2 * (_commit() % (len(LIGHT) // 2))
    now = LIGHT[first : first + 2]
    return [name if name in now else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


def pictures(size: int) -> ArrayData:
    """Stripes of another width for every class, with noise."""
    generator = torch.Generator().manual_seed(0)
    splits: dict[Split, tuple[torch.Tensor, torch.Tensor]] = {}
    for split in ("train", "calibration", "validation", "test"):
        labels = torch.arange(16) % CLASSES
        columns = torch.arange(size)[None, :] // (4 * (labels[:, None] + 1)) % 2
        stripes = columns[:, None, None, :].expand(-1, 3, size, -1).float()
        splits[split] = (stripes + 0.3 * torch.randn(stripes.shape, generator=generator), labels)
    return ArrayData(splits, ("a", "b", "c", "d"))


def candidate(name: str, size: int, folder: Path) -> Candidate:
    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options).eval()
    for layer in model.modules():  # torchvision's vision transformers begin with a head of zeros
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.02)
    preprocessing = ImagePreprocessing(channels=3, height=size, width=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = ModelSpec(
        name=name, sha256="0" * 64, architecture=name, classes=CLASSES, preprocessing=preprocessing
    )
    write_archive(trace(model, preprocessing), folder / "model.pt2")
    return open_model(folder / "model.pt2", spec)


def logits(file: Path, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(file).run(None, {"input": inputs})[0])


@pytest.fixture(autouse=True)
def own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time matters here: it is hardly taken, and nobody else on this host has to wait."""
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    monkeypatch.setattr(latency, "MAX_ROUNDS", 2)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _families())
def test_prune_recover_int8_onnx(name: str, tmp_path: Path) -> None:
    size = 224 if name.startswith("vit") else 96
    data, model = pictures(size), candidate(name, size, tmp_path)
    job = Job(
        model=model, data=data, dataset="d" * 64, recipe=parse_recipe(RECIPE, "chain"),
        folder=tmp_path / "stages", runtime=OnnxRuntime(), target=Target(host="here"),
        device=torch.device("cpu"), seed=0,
    )  # fmt: skip
    baseline, pruned, recovered, int8 = run(job).stages
    macs = [next(m.value for m in s.measurements if m.name == "macs") for s in (baseline, pruned)]
    assert macs[0]
    assert macs[1]
    assert macs[1] / macs[0] < 0.75
    for stage in (baseline, pruned, recovered):
        assert stage.parity is not None
        assert stage.parity.logit_error < 1e-3
    inputs = data.splits["test"][0].numpy()
    expected, got = logits(recovered.file, inputs), logits(int8.file, inputs)
    noise = ((got - expected) ** 2).mean()
    assert noise > 0, "int8 and float give the same bits"
    assert 10 * np.log10(expected.var() / noise) > LEAST_SQNR
    assert int8.file.stat().st_size < 0.4 * recovered.file.stat().st_size
