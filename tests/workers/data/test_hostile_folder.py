"""Folders that lead elsewhere, hold too much, or hold nothing; and pictures made to harm."""

import io
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from workers.base import ImagePreprocessing
from workers.data import Dataset
from workers.errors import DatasetRefused

Write = Callable[[str, Mapping[str, bytes]], Path]
Open = Callable[..., Dataset]
Noise = Callable[..., bytes]


@pytest.fixture
def pets(folder: Write, two_classes: dict[str, bytes]) -> Path:
    return folder("pets", two_classes)


def test_a_link_to_a_file_outside(pets: Path, tmp_path: Path, load: Open, noise: Noise) -> None:
    (tmp_path / "secret.png").write_bytes(noise(99))
    (pets / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DatasetRefused, match=r"'cat/link.png' is a link to a file outside"):
        load(pets)


@pytest.mark.parametrize("target", ["..", "cat", "/", "nowhere"])
def test_links_to_folders_and_to_nothing(target: str, pets: Path, load: Open) -> None:
    (pets / "dog" / "link").symlink_to(pets / target)
    with pytest.raises(DatasetRefused, match=r"'dog/link' is a link to (a folder|nothing)"):
        load(pets)


def test_a_link_inside_the_folder_is_a_picture(pets: Path, load: Open) -> None:
    (pets / "cat" / "link.png").symlink_to(pets / "cat" / "0.png")
    assert len(load(pets).labels) == 21


def test_a_pipe_does_not_hang(pets: Path, tmp_path: Path, load: Open) -> None:
    os.mkfifo(pets / "cat" / "pipe.png")
    assert len(load(pets).labels) == 20
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(DatasetRefused, match="no file or folder"):
        load(tmp_path / "pipe.zip")


def test_limits_on_a_folder(pets: Path, load: Open) -> None:
    for limits, what in (
        ({"members": 19}, "more than 19 files"),
        ({"total_bytes": 500}, "more than 500 bytes"),
        ({"picture_bytes": 50}, "bytes; 50 are allowed"),
        ({"samples": 19}, "20 samples; 19 are allowed"),
        ({"pixels": 29}, "6 × 5 pixels, and decoding visits 30; 29 are allowed"),
        ({"free_pixels": 599, "pixels_per_byte": 0}, "600 pixels in all; 599 are allowed"),
    ):
        with pytest.raises(DatasetRefused, match=what):
            load(pets, **limits)


@pytest.mark.parametrize("name", ["cat/\x1b[31mred.png", "c\nat/0.png"])
def test_names_that_would_write_to_a_terminal(
    name: str, folder: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    source = folder("x", two_classes | {name: b"no picture", "c\nat/1.png": two_classes["cat/0.png"]})
    with pytest.raises(DatasetRefused, match="not printable") as caught:
        load(source)
    assert str(caught.value).isprintable()


def test_a_refused_picture_cannot_write_to_a_terminal(
    folder: Write, archive: Write, load: Open, two_classes: dict[str, bytes]
) -> None:
    files = two_classes | {"cat/\x1b[31mred.png": two_classes["cat/0.png"]}
    for source in (folder("x", files), archive("x.zip", files)):
        with pytest.raises(DatasetRefused, match=r"x1b\[31mred.png: The picture takes") as caught:
            load(source, picture_bytes=1)
        assert str(caught.value).isprintable()


def test_nothing_to_learn(folder: Write, load: Open, noise: Noise, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, what in (
        (tmp_path / "empty", "no pictures in class folders"),
        (folder("flat", {"0.png": noise(0), "1.png": noise(1)}), "no pictures in class folders"),
        (folder("text", {"a/0.txt": b"x", "b/0.txt": b"y"}), "no pictures in class folders"),
        (folder("broken", {"a/0.png": b"x", "b/0.png": b"y"}), "None of its 2 pictures can be decoded"),
        (folder("one", {"a/0.png": noise(0), "a/1.png": noise(1)}), "Every sample is of class 'a'"),
        (folder("two", {"a/0.png": noise(0), "b/1.png": b"x"}), "Every sample is of class 'a'"),
    ):
        with pytest.raises(DatasetRefused, match=what) as caught:
            load(source)
        assert "class/picture.png" in caught.value.fix


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (
            ("train/a", "train/b", "test/a"),
            "test has 1 classes and train has 2: 'b' is in train and not in test",
        ),
        (("train/a", "train/b", "val/a", "val/b", "val/c"), "'c' is in validation and not in train"),
        (("train/a", "train/b", "holdout/a", "holdout/b"), "'holdout' stands beside 'train' but is no split"),
        (("test/a", "test/b"), "test but no train split"),
    ],
)
def test_split_folders_that_do_not_agree(
    names: tuple[str, ...], what: str, folder: Write, load: Open, noise: Noise
) -> None:
    files = {f"{name}/{index}.png": noise(index) for name in names for index in range(3)}
    with pytest.raises(DatasetRefused, match=what):
        load(folder("x", files))


def test_pixel_bombs(folder: Write, load: Open, two_classes: dict[str, bytes]) -> None:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    with pytest.raises(DatasetRefused, match=r"cat/bomb.png.*9,000 × 9,000 pixels"):
        load(folder("one", two_classes | {"cat/bomb.png": file.getvalue()}))
    file = io.BytesIO()
    Image.new("1", (7000, 7000)).save(file, "PNG")
    many = {f"cat/bomb{index}.png": file.getvalue() for index in range(60)}
    with pytest.raises(DatasetRefused, match="pixels in all; 2,000,000,000 are allowed"):
        load(folder("many", two_classes | many))


def test_postscript_is_never_run(
    folder: Write, load: Open, two_classes: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would hand it to Ghostscript, a program that reads and writes files."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "check_call", lambda *arguments, **_: started.append(arguments))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(marker) (w) file\n%%EOF\n"
    with Image.open(io.BytesIO(script)) as picture, pytest.raises((OSError, ValueError)):
        picture.load()
    assert started, "the proof of concept itself must reach Ghostscript"
    started.clear()
    dataset = load(folder("x", two_classes | {"cat/script.png": script}))
    assert len(dataset.labels) == 20
    assert not started


def test_a_picture_that_goes_later_is_named(pets: Path, load: Open, tmp_path: Path) -> None:
    dataset = load(pets)
    (pets / "dog" / "3.png").unlink()
    model = ImagePreprocessing(channels=3, height=5, width=6, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(DatasetRefused, match=r"pets: dog/3.png: The file cannot be read \(No such file"):
        dataset.prepare(model, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "pictures").glob("*"))
