"""Small generated pictures, and folders and zips of them."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workers.data import Dataset, Limits, open_dataset

Write = Callable[[str, Mapping[str, bytes]], Path]
Open = Callable[..., Dataset]
Noise = Callable[..., bytes]


@pytest.fixture
def noise() -> Noise:
    """Encode a random picture; the same seed gives the same bytes."""

    def encode(seed: int, width: int = 6, height: int = 5, mode: str = "RGB", form: str = "PNG") -> bytes:
        channels = () if mode == "L" else (3,)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form)
        return file.getvalue()

    return encode


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """Write files below a new folder."""

    def write(name: str, files: Mapping[str, bytes]) -> Path:
        for path, data in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return tmp_path / name

    return write


@pytest.fixture
def archive(tmp_path: Path) -> Write:
    """Write files into a new zip."""

    def write(name: str, files: Mapping[str, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as target:
            for path, data in files.items():
                target.writestr(path, data)
        return tmp_path / name

    return write


@pytest.fixture
def load(tmp_path: Path) -> Open:
    """Open a dataset with a cache of its own."""

    def call(source: str | Path, seed: int = 0, **limits: int) -> Dataset:
        return open_dataset(source, cache=tmp_path / "cache", seed=seed, limits=Limits(**limits))

    return call


@pytest.fixture
def two_classes(noise: Noise) -> dict[str, bytes]:
    """Ten pictures of each of two classes."""
    return {
        f"{name}/{index}.png": noise(20 * (name == "dog") + index)
        for name in ("cat", "dog")
        for index in range(10)
    }
