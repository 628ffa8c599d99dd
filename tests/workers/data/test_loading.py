"""Batches: the right pixels, in a repeatable order, from a cache that a killed process cannot spoil."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

from workers.base import ImagePreprocessing, LabelledData
from workers.data import Dataset, ImageData, loading
from workers.data.augment import AUGMENTATIONS

Write = Callable[[str, Mapping[str, bytes]], Path]
Open = Callable[..., Dataset]
COLOUR = ImagePreprocessing(channels=3, height=8, width=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
WIDE = ImagePreprocessing(
    channels=3, height=8, width=8, resize=10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def npz(tmp_path: Path, images: np.ndarray) -> Path:
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(200) % 4)
    return tmp_path / "x.npz"


def joined(data: LabelledData, **options: int | str | None) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = zip(*data.batches("train", 16, **options), strict=True)  # type: ignore[arg-type]
    return torch.cat(pixels), torch.cat(labels)


def test_batches_are_torchvisions_tensors_in_the_order_of_the_labels(
    npz: Path, images: np.ndarray, load: Open, tmp_path: Path
) -> None:
    dataset = load(npz)
    data = dataset.prepare(COLOUR, tmp_path / "cache")
    pixels, labels = joined(data)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(COLOUR.mean, COLOUR.std)])
    expected = torch.stack([reference(images[index]) for index in dataset.splits["train"]])
    torch.testing.assert_close(pixels, expected)
    assert (pixels.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert labels.tolist() == data.labels("train").tolist() == (dataset.splits["train"] % 4).tolist()


def test_the_last_batch_is_what_is_left(npz: Path, load: Open, tmp_path: Path) -> None:
    data = load(npz).prepare(COLOUR, tmp_path / "cache")
    total = len(data.labels("train"))
    sizes = [len(labels) for _, labels in data.batches("train", 50)]
    assert sizes == [50] * (total // 50) + [total % 50]
    assert [len(labels) for _, labels in data.batches("train", 1000)] == [total]


def test_shuffling_keeps_every_pair_and_follows_its_seed(npz: Path, load: Open, tmp_path: Path) -> None:
    data = load(npz).prepare(COLOUR, tmp_path / "cache")
    plain, one, again, other = (joined(data, shuffle=seed) for seed in (None, 1, 1, 2))
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    pairs = [
        sorted((x.flatten()[0].item(), y.item()) for x, y in zip(*two, strict=True)) for two in (plain, one)
    ]
    assert pairs[0] == pairs[1]


def test_order_and_augmentation_are_the_same_on_every_machine(npz: Path, load: Open, tmp_path: Path) -> None:
    """Noted once; a difference means that old checkpoints would go on with other batches."""
    raw = COLOUR.model_copy(update={"mean": (0.0,) * 3, "std": (1 / 255,) * 3})
    pixels, labels = joined(load(npz).prepare(raw, tmp_path / "cache"), shuffle=5, augment="crop_flip")
    assert labels[:12].tolist() == [3, 2, 1, 1, 1, 2, 2, 1, 3, 2, 3, 1]
    assert pixels[0, 0, 0].round().tolist() == [26, 211, 210, 167, 219, 165, 53, 171]
    assert pixels[:12].round().sum().item() == 291398


def test_augmentation_is_for_whole_batches_and_before_normalisation(
    npz: Path, load: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def black(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG001
        seen.append(pixels)
        return torch.zeros_like(pixels)

    monkeypatch.setitem(AUGMENTATIONS, "black", black)
    pixels, _ = joined(load(npz).prepare(COLOUR, tmp_path / "cache"), augment="black")
    assert [tuple(one.shape) for one in seen[:1]] == [(16, 3, 8, 8)]
    assert all(one.dtype == torch.uint8 for one in seen)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([-2.0, -2.0, -2.0])


def test_an_unknown_augmentation_fails_at_the_call(npz: Path, load: Open, tmp_path: Path) -> None:
    data = load(npz).prepare(COLOUR, tmp_path / "cache")
    with pytest.raises(ValueError, match="mixup"):
        data.batches("train", 16, augment="mixup")


def test_lazy_and_mapped_pictures_are_the_same(npz: Path, load: Open, tmp_path: Path) -> None:
    mapped = load(npz).prepare(WIDE, tmp_path / "cache")
    lazy = load(npz, decoded_bytes=100).prepare(WIDE, tmp_path / "cache")
    assert type(mapped.store) is not type(lazy.store)
    assert any("read anew for every batch" in problem for problem in lazy.problems)
    for options in ({}, {"shuffle": 3, "augment": "auto"}):
        assert torch.equal(joined(mapped, **options)[0], joined(lazy, **options)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("decoded_bytes", [10**6, 100])
def test_a_zip_of_photos_is_what_imagefolder_and_torchvision_make_of_it(
    decoded_bytes: int, folder: Write, archive: Write, load: Open, noise: Callable[..., bytes], tmp_path: Path
) -> None:
    photos = {
        f"{name}/{index}.jpg": noise(index, 30 + index, 20, form="JPEG")
        for name in "ab"
        for index in range(9)
    }
    dataset = load(archive("x.zip", photos), decoded_bytes=decoded_bytes)
    grey = ImagePreprocessing(channels=1, height=8, width=12, resize=16, mean=(0.4,), std=(0.2,))
    pixels, labels = joined(dataset.prepare(grey, tmp_path / "cache"))
    steps = [
        transforms.Grayscale(),
        transforms.Resize(16),
        transforms.CenterCrop((8, 12)),
        transforms.ToTensor(),
    ]
    reference = ImageFolder(folder("x", photos), transforms.Compose([*steps, transforms.Normalize(0.4, 0.2)]))
    expected = [reference[int(index)] for index in dataset.splits["train"]]
    torch.testing.assert_close(pixels, torch.stack([picture for picture, _ in expected]))
    assert labels.tolist() == [label for _, label in expected]


def test_a_reader_may_stop_early(npz: Path, load: Open, tmp_path: Path) -> None:
    lazy = load(npz, decoded_bytes=100).prepare(COLOUR, tmp_path / "cache")
    assert len(next(iter(lazy.batches("train", 16)))[0]) == 16


def test_a_full_disk_means_lazy_reading(
    npz: Path, load: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    data = load(npz).prepare(COLOUR, tmp_path / "cache")
    assert any("no room" in problem for problem in data.problems)
    assert not list((tmp_path / "cache" / "pictures").iterdir())


def test_pictures_are_decoded_once_per_geometry(
    npz: Path, load: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load(npz)
    first = joined(dataset.prepare(COLOUR, tmp_path / "cache"))[0]
    dataset.prepare(WIDE, tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 2
    monkeypatch.setattr(loading, "fit", None)
    assert torch.equal(joined(dataset.prepare(COLOUR, tmp_path / "cache"))[0], first)


def test_another_mean_uses_the_same_decoded_pictures(npz: Path, load: Open, tmp_path: Path) -> None:
    dataset = load(npz)
    for mean in (0.1, 0.2):
        dataset.prepare(COLOUR.model_copy(update={"mean": (mean,) * 3}), tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_auto_goes_by_the_data_and_not_by_the_model(
    channels: int, load: Open, tmp_path: Path, images: np.ndarray
) -> None:
    """A grey digit is no better mirrored because the model takes three channels."""
    np.savez(tmp_path / "x.npz", images=images[..., :channels], labels=np.arange(200) % 4)
    data = load(tmp_path / "x.npz").prepare(COLOUR, tmp_path / "cache")
    expected = "crop" if channels == 1 else "crop_flip"
    assert torch.equal(
        joined(data, shuffle=1, augment="auto")[0], joined(data, shuffle=1, augment=expected)[0]
    )
    assert any("the model takes colour" in problem for problem in data.problems) == (channels == 1)


def test_an_error_while_decoding_leaves_no_file(
    npz: Path, load: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, done = load(npz), 0

    def failing(*_: object) -> np.ndarray:
        nonlocal done
        done += 1
        if done > 150:
            raise OSError("disk gone")
        return np.zeros((3, 8, 8), dtype=np.uint8)

    monkeypatch.setattr(loading, "fit", failing)
    with pytest.raises(OSError, match="disk gone"):
        dataset.prepare(COLOUR, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "pictures").iterdir())


def test_what_a_killed_process_left_is_not_trusted_and_goes_in_time(
    npz: Path, load: Open, tmp_path: Path
) -> None:
    program = f"""
        import time
        from pathlib import Path
        from workers.data import loading, open_dataset
        from workers.base import ImagePreprocessing
        honest, cache = loading.fit, Path({str(tmp_path / "cache")!r})
        def slow(*arguments):
            time.sleep(1)
            return honest(*arguments)
        loading.fit = slow
        loading.in_parallel.__defaults__ = (1,)
        dataset = open_dataset({str(npz)!r}, cache=cache, seed=0)
        dataset.prepare(ImagePreprocessing(**{COLOUR.model_dump()!r}), cache)
    """
    root = Path(__file__).parents[3]
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=root)
    pictures = tmp_path / "cache" / "pictures"
    deadline = time.monotonic() + 60
    while not list(pictures.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (left,) = pictures.iterdir()
    assert left.suffix == ".partial"

    dataset = load(npz)
    data = dataset.prepare(COLOUR, tmp_path / "cache")
    assert isinstance(data, ImageData)
    assert torch.isfinite(joined(data)[0]).all()
    assert (joined(data)[0].flatten(1).std(dim=1) > 0).all()
    os.utime(left, (0, 0))
    dataset.prepare(WIDE, tmp_path / "cache")
    assert not left.exists()
