"""Arrays saved with numpy.savez: images, labels, and if wanted classes and split."""

import math
import tokenize
from typing import IO

import numpy as np

from workers.base import SPLITS
from workers.data.archive import Archive, damage_refused
from workers.data.limits import Limits
from workers.data.samples import Samples, from_array, refuse_classes
from workers.data.splits import UNSAID
from workers.data.tree import SPLIT_NAMES
from workers.errors import DatasetRefused

SAVE = "Save it with numpy.savez(file, images=images, labels=labels)."
SHAPE = "Save images as uint8 of shape (N, H, W) or (N, H, W, C) with C = 1, 3 or 4."


def from_npz(name: str, archive: Archive, limits: Limits) -> Samples:
    """Read and check the arrays. Raises DatasetRefused; nothing is ever unpickled."""
    where = archive.where
    for needed in ("images", "labels"):
        if f"{needed}.npy" not in archive.members:
            raise DatasetRefused(where, f"It has no array {needed!r}.", SAVE)
    labels = read_labels(archive, limits)
    images = read_images(archive, limits)
    if len(images) != len(labels):
        what = f"There are {len(images):,} images and {len(labels):,} labels."
        raise DatasetRefused(where, what, "Give every image one label.")
    classes = read_classes(archive, limits, int(labels.max()) + 1)
    if labels.max() >= len(classes):
        what = f"Label {labels.max()} is out of range: there are {len(classes)} classes, counted from 0."
        raise DatasetRefused(f"{where}: labels", what, "Name every class, or correct the labels.")
    return from_array(name, images, labels, read_split(archive, limits, len(labels)), classes)


def read_images(archive: Archive, limits: Limits) -> np.ndarray:
    """(N, H, W) or (N, H, W, C) uint8."""
    images = read_array(archive, "images", limits)
    where, shape = f"{archive.where}: images", images.shape
    if images.dtype != np.uint8:
        fix = "Save pixels as uint8, 0-255; from 0-1 floats: (images * 255).round().astype('uint8')."
        raise DatasetRefused(where, f"The dtype is {images.dtype}.", fix)
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3, 4):
        raise DatasetRefused(
            where, f"The shape is {shape}.", "Put channels last: images.transpose(0, 2, 3, 1)."
        )
    if images.ndim not in (3, 4) or min(shape) < 1 or (images.ndim == 4 and shape[3] not in (1, 3, 4)):
        raise DatasetRefused(where, f"The shape is {shape}.", SHAPE)
    if shape[1] * shape[2] > limits.pixels:
        what = f"A picture has {shape[1] * shape[2]:,} pixels; {limits.pixels:,} are allowed."
        raise DatasetRefused(where, what, "Scale the pictures down.")
    return images


def read_labels(archive: Archive, limits: Limits) -> np.ndarray:
    """(N,) int64, none of them negative."""
    labels = read_array(archive, "labels", limits)
    where = f"{archive.where}: labels"
    if labels.dtype.kind not in "iu":
        nan = labels.dtype.kind == "f" and np.isnan(labels).any()
        what = f"The dtype is {labels.dtype}{', with NaN among the values' if nan else ''}."
        raise DatasetRefused(where, what, "Save labels as integers: labels.astype('int64').")
    if labels.ndim != 1 or not len(labels):
        what = f"The shape is {labels.shape}."
        raise DatasetRefused(where, what, "Save one label per image, shape (N,): labels.reshape(-1).")
    for value in (labels.min(), labels.max()):
        if not 0 <= value < limits.classes:
            what = f"Label {value} is out of range; {limits.classes:,} classes are allowed."
            raise DatasetRefused(where, what, "Number the classes 0, 1, 2 …")
    return labels.astype(np.int64)


def read_classes(archive: Archive, limits: Limits, count: int) -> tuple[str, ...]:
    """The names, or the numbers of the labels where there are none."""
    if "classes.npy" not in archive.members:
        return tuple(str(number) for number in range(count))
    names = read_strings(archive, "classes", limits)
    refuse_classes(names, f"{archive.where}: classes")
    return names


def read_split(archive: Archive, limits: Limits, count: int) -> np.ndarray:
    """(N,) index into SPLITS, or UNSAID."""
    if "split.npy" not in archive.members:
        return np.full(count, UNSAID)
    names, where = read_strings(archive, "split", limits), f"{archive.where}: split"
    if len(names) != count:
        what = f"There are {len(names):,} entries and {count:,} labels."
        raise DatasetRefused(where, what, "Give every image one split.")
    unknown = sorted(set(names) - set(SPLIT_NAMES))
    if unknown:
        raise DatasetRefused(where, f"{unknown[0]!r} is no split.", f"Use {', '.join(SPLITS)}.")
    return np.array([SPLITS.index(SPLIT_NAMES[name]) for name in names])


def read_strings(archive: Archive, key: str, limits: Limits) -> tuple[str, ...]:
    """A one-dimensional array of strings."""
    values = read_array(archive, key, limits)
    if values.dtype.kind != "U" or values.ndim != 1:
        what = f"It is {values.dtype} of shape {values.shape}, not a row of strings."
        raise DatasetRefused(f"{archive.where}: {key}", what, f"Save it as numpy.array({key}, dtype=str).")
    return tuple(values.tolist())


def read_array(archive: Archive, key: str, limits: Limits) -> np.ndarray:
    """Read one member after its header was found to agree with its size."""
    info, where = archive.members[f"{key}.npy"], f"{archive.where}: {key}"
    if info.file_size > limits.array_bytes:
        what = f"The array takes {info.file_size:,} bytes; {limits.array_bytes:,} are allowed."
        raise DatasetRefused(where, what, "Bring the pictures as a folder or zip; those are read bit by bit.")
    with damage_refused(where):
        with archive.zip.open(info) as member:
            shape, dtype = read_header(member, where)
            promised, rest = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if promised != rest:
            what = f"The header promises {promised:,} bytes of shape {shape}, and {rest:,} are there."
            raise DatasetRefused(where, what, SAVE)
        if shape and shape[0] > limits.samples:
            what = f"There are {shape[0]:,} entries; {limits.samples:,} are allowed."
            raise DatasetRefused(where, what, "Bring fewer samples.")
        with archive.zip.open(info) as member:
            array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def read_header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype; refuses objects, which are pickled and would run code."""
    try:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as damage:
        raise DatasetRefused(where, f"This is no numpy array ({damage}).", SAVE) from damage
    if dtype.hasobject:
        raise DatasetRefused(where, "It holds Python objects, which are pickled and could run code.", SHAPE)
    if any(size < 0 for size in shape) or not dtype.itemsize:
        raise DatasetRefused(where, f"The header says {dtype} of shape {shape}.", SAVE)
    return shape, dtype
