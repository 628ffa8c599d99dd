"""What every reader gives: labelled pictures and what is known of each."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from workers.data.pictures import Pictures
from workers.errors import DatasetRefused

#: Pixels compared at a time.
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Samples:
    """N labelled pictures as they were found, before the missing splits are cut.

    labels: (N,) int64. given: (N,) index into SPLITS, or UNSAID.
    digests: (N, 32) uint8, SHA-256 of each picture. paths: its place in a folder or zip, none in an array.
    sizes: (N, 2) heights and widths. grey: no picture has colour.
    """

    name: str
    pictures: Pictures
    labels: np.ndarray
    given: np.ndarray
    classes: tuple[str, ...]
    digests: np.ndarray
    paths: tuple[str, ...]
    sizes: np.ndarray
    grey: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ArrayPictures:
    """Pictures in memory: (N, H, W) or (N, H, W, C) uint8 with C = 1, 3 or 4."""

    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image.Image:
        picture = Image.fromarray(self.images[index])
        return picture.convert("RGB") if picture.mode == "RGBA" else picture


def from_array(
    name: str, images: np.ndarray, labels: np.ndarray, given: np.ndarray, classes: tuple[str, ...]
) -> Samples:
    """Wrap checked arrays."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    grey = images.ndim == 3 or all(
        (images[start : start + ROWS, ..., :3] == images[start : start + ROWS, ..., :1]).all()
        for start in range(0, len(images), ROWS)
    )
    return Samples(
        name=name,
        pictures=ArrayPictures(images),
        labels=labels.astype(np.int64),
        given=given,
        classes=classes,
        digests=np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32),
        paths=(),
        sizes=np.broadcast_to(np.array(images.shape[1:3]), (len(images), 2)),
        grey=grey,
    )


def refuse_classes(names: tuple[str, ...], where: str) -> None:
    """Class names go to terminals and pages: one printable line each, no name twice."""
    for name in names:
        if not name or len(name) > 200 or not name.isprintable():
            raise DatasetRefused(
                where, f"The class name {name[:40]!r} is empty, too long or not printable.", "Rename it."
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetRefused(
            where, f"The class name {twice!r} is there twice.", "Give each class its own name."
        )
