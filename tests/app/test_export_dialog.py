"""The lines beside an exported file really run, elsewhere, and do what the workers do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.components.export_dialog import lines_to_prepare, lines_to_run, parity_sentence
from db.models import Model
from workers.base import Candidate, ImagePreprocessing, ModelSpec
from workers.data.limits import DEFAULTS
from workers.data.pictures import fit
from workers.deploy.export import export_onnx

#: Refuses to import what the lines must not need.
ELSEWHERE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"PIL", "torch", "onnx", "workers", "app", "db"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def how(channels: int, resize: int | None = None) -> ImagePreprocessing:
    return ImagePreprocessing.model_validate(
        {
            "channels": channels, "height": 24, "width": 20, "resize": resize,
            "mean": [0.4, 0.5, 0.6][:channels], "std": [0.2, 0.25, 0.3][:channels],
        }
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_the_lines_run_with_nothing_but_onnxruntime_and_numpy(channels: int, tmp_path: Path) -> None:
    looks = how(channels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 5, 4),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(160, 3),
        )
    spec = ModelSpec(name="n", sha256="0", architecture=None, classes=3, preprocessing=looks)
    graph = torch.fx.symbolic_trace(net.eval())
    export_onnx(Candidate(spec, graph=graph), tmp_path / "net.onnx", ("cat", "dog", "süß"))
    pictures = np.random.default_rng(0).integers(0, 256, (7, 24, 20, channels), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    lines = lines_to_run("net.onnx", looks.model_dump())
    assert len(lines.splitlines()) <= 10
    ran = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE + lines], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255
    inputs = (inputs - torch.tensor(looks.mean).view(-1, 1, 1)) / torch.tensor(looks.std).view(-1, 1, 1)
    with torch.no_grad():
        expected = net.double()(inputs).argmax(1)
    assert ran.stdout.split() == [("cat", "dog", "süß")[best] for best in expected]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 29, 40])
@pytest.mark.parametrize("size", [(37, 61), (64, 31), (24, 24)])
def test_the_lines_prepare_pictures_as_the_workers_do(
    channels: int,
    resize: int | None,
    size: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = how(channels, resize)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    exec(lines_to_prepare(looks.model_dump()), {})
    made = np.load(tmp_path / "pictures.npy")
    fitted = fit(Image.open(tmp_path / "picture.png"), looks, DEFAULTS)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, fitted.transpose(1, 2, 0)[None])


def test_parity_is_told_in_numbers() -> None:
    model = Model(file_name="model.pt2")
    assert "differ from the network's by design" in parity_sentence(None, model)  # quantized
    parity = {"samples": 1256, "logit_error": 2.34e-6, "same_answer": 1.0}
    told = parity_sentence(parity, model)
    assert "1,256 samples" in told
    assert "2.3e-06" in told
    assert "100.0\u00a0%" in told
    assert "as it came" in parity_sentence(parity, Model(file_name="model.onnx"))
