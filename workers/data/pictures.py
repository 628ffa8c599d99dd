"""One picture: from its bytes, safely, to the geometry of a model."""

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms import functional as geometry

from workers.base import ImagePreprocessing
from workers.data.limits import Limits
from workers.errors import DatasetRefused

#: Pillow's other readers start programs (EPS), fetch fonts or have no use here.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
#: Decoded by a loop in Python, a byte at a time.
PLAIN_PPM = (b"P1", b"P2", b"P3")
#: A progressive JPEG has about ten.
USUAL_SCANS = 16

Picked = TypeVar("Picked")


class UnreadablePicture(Exception):
    """The bytes are no picture, or a damaged one."""


class Pictures(Protocol):
    """Decoded, upright pictures of mode "L" or "RGB", by index; safe to read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image: ...


def peek(data: bytes, where: str, limits: Limits) -> Image.Image:
    """Read the header only, and refuse what would take too long or too much memory to decode."""
    if data[:2] in PLAIN_PPM:
        raise UnreadablePicture("a plain-text PPM")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        raise DatasetRefused(where, f"{bomb}", "Leave this picture out.") from bomb
    except Exception as damage:
        raise UnreadablePicture(str(damage)) from damage
    if (visited := pixels_visited(picture, data)) > limits.pixels:
        raise DatasetRefused(
            where,
            f"The picture is {picture.width:,} × {picture.height:,} pixels, and decoding visits {visited:,}; "
            f"{limits.pixels:,} are allowed.",
            "Scale it down, save it anew, or leave it out.",
        )
    return picture


def pixels_visited(picture: Image.Image, data: bytes) -> int:
    """The pixels, times the usual number of scans in a JPEG: each scan visits all of them again, and an
    empty one takes some 50 bytes."""
    scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
    return picture.width * picture.height * (1 + scans // USUAL_SCANS)


def decode(data: bytes, where: str, limits: Limits) -> Image.Image:
    """Decode the first frame, turn it upright, and give it as "L" or "RGB".

    Raises UnreadablePicture, and DatasetRefused for a picture that is too large.
    """
    return settle(peek(data, where, limits))


def settle(picture: Image.Image) -> Image.Image:
    """Decode what was peeked at."""
    try:
        ImageOps.exif_transpose(picture, in_place=True)
        return plain(picture)
    except Exception as damage:
        raise UnreadablePicture(str(damage)) from damage


def plain(picture: Image.Image) -> Image.Image:
    """To "L" or "RGB". 16-bit grey keeps its upper byte; transparency is dropped, as ImageFolder does."""
    if picture.mode in ("L", "RGB"):
        picture.load()
        return picture
    if picture.mode.startswith("I"):
        high = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(high.astype(np.uint8))
    if picture.mode == "F":
        raise UnreadablePicture("float pixels have no agreed range")
    if picture.mode in ("1", "LA", "La"):
        return picture.convert("L")
    if picture.mode == "P":  # by way of RGBA: a transparent palette entry would make Pillow warn
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def fit(picture: Image.Image, preprocessing: ImagePreprocessing, limits: Limits) -> np.ndarray:
    """Bring a picture to (C, H, W) uint8; bilinear with antialiasing, none at all where sizes agree."""
    height, width = preprocessing.height, preprocessing.width
    picture = picture.convert("L" if preprocessing.channels == 1 else "RGB")
    if preprocessing.resize is None:
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    else:
        refuse_thin(picture, preprocessing.resize, limits)
        picture = geometry.resize(picture, preprocessing.resize, antialias=True)
        picture = geometry.center_crop(picture, [height, width])
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def refuse_thin(picture: Image.Image, shorter: int, limits: Limits) -> None:
    """A line of one pixel is small until its shorter side is scaled up."""
    width, height = picture.size
    scaled = shorter * shorter * max(width, height) // min(width, height)
    if scaled > limits.pixels:
        raise DatasetRefused(
            "dataset",
            f"A picture of {width:,} × {height:,} pixels becomes {scaled:,} pixels when its shorter side "
            f"is resized to {shorter}; {limits.pixels:,} are allowed.",
            "Leave it out, or crop it to a usual shape.",
        )


def is_grey(picture: Image.Image) -> bool:
    """Also true for colour pictures whose three channels are the same, such as digits saved as RGB."""
    if picture.mode != "RGB":
        return True
    pixels = np.asarray(picture)
    return bool((pixels == pixels[..., :1]).all())


def in_parallel(work: Callable[[int], Picked], count: int, chunk: int = 64) -> Iterator[list[Picked]]:
    """Call ``work`` for 0 … count-1 on all cores, and yield the results in order, a chunk at a time."""

    def part(start: int) -> list[Picked]:
        return [work(index) for index in range(start, min(start + chunk, count))]

    # A window, so that results do not pile up when the reader is slower than the pool.
    starts = iter(range(0, count, chunk))
    pool = ThreadPoolExecutor()
    try:
        waiting = deque(pool.submit(part, start) for start in islice(starts, 32))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(part, start) for start in islice(starts, 1))
    finally:
        pool.shutdown(cancel_futures=True)
