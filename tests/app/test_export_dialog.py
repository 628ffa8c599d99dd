"""The lines that run an exported file prepare a picture exactly as the workers do."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.components.export_dialog import lines_to_run
from workers.base import ImagePreprocessing
from workers.data.limits import DEFAULTS
from workers.data.pictures import fit


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 29, 40])
@pytest.mark.parametrize("size", [(37, 61), (64, 31), (24, 24)])
def test_the_lines_prepare_pictures_as_the_workers_do(
    channels: int,
    resize: int | None,
    size: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    how = ImagePreprocessing.model_validate(
        {
            "channels": channels, "height": 24, "width": 24, "resize": resize,
            "mean": [0.4, 0.5, 0.6][:channels], "std": [0.2, 0.25, 0.3][:channels],
        }
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    got: list[np.ndarray] = []

    class Session:
        def __init__(self, file: str) -> None:
            assert file == "net.onnx"

        def get_modelmeta(self) -> Any:
            about = {"preprocessing": how.model_dump_json(), "classes": json.dumps(["cat", "dog"])}
            return SimpleNamespace(custom_metadata_map=about)

        def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            got.append(inputs["input"])
            return [np.array([[0.1, 0.9]])]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    monkeypatch.chdir(tmp_path)
    exec(lines_to_run("net.onnx", resized=resize is not None), {})
    assert capsys.readouterr().out == "dog\n"
    fitted = fit(Image.open(tmp_path / "picture.png"), how, DEFAULTS).astype(np.float32)[None] / 255
    shape = (1, -1, 1, 1)
    expected = (fitted - np.reshape(how.mean, shape)) / np.reshape(how.std, shape)
    assert got[0].shape == (1, channels, 24, 24)
    np.testing.assert_allclose(got[0], expected, atol=1e-6)
