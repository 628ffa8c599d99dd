"""Batches for one model: from a memory-mapped array where the pictures are few, else decoded on the way."""

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from workers.base import ImagePreprocessing, Split
from workers.data.augment import Augmentation, augmentation
from workers.data.limits import Limits
from workers.data.pictures import Pictures, fit, in_parallel
from workers.writing import written_whole

#: In the name of what is cached; raise it when the same picture would be decoded to other pixels.
VERSION = 1


class Store(Protocol):
    """All pictures of a dataset in the geometry of a model."""

    def read(self, indices: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield (B, C, H, W) uint8 for each (B,) of indices."""
        ...


@dataclass(frozen=True, eq=False)
class MappedStore:
    """Decoded once: (N, C, H, W) uint8 in a file of the cache."""

    pixels: np.ndarray

    def read(self, indices: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Copy the rows of each batch."""
        return (self.pixels[batch] for batch in indices)


@dataclass(frozen=True, eq=False)
class LazyStore:
    """Decoded anew each time, on all cores, one batch ahead of the reader."""

    pictures: Pictures
    preprocessing: ImagePreprocessing
    limits: Limits

    def read(self, indices: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Decode the next batch while the caller works on this one."""

        def one(index: int) -> np.ndarray:
            return fit(self.pictures[index], self.preprocessing, self.limits)

        pool = ThreadPoolExecutor()
        try:
            ahead = [pool.submit(one, int(index)) for index in indices[0]] if indices else []
            for position in range(len(indices)):
                batch, following = ahead, indices[position + 1 : position + 2]
                ahead = [pool.submit(one, int(index)) for rows in following for index in rows]
                yield np.stack([future.result() for future in batch])
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled pictures, preprocessed for one model; a ``workers.base.LabelledData``."""

    classes: tuple[str, ...]
    problems: tuple[str, ...]
    preprocessing: ImagePreprocessing
    grey: bool
    split_labels: Mapping[Split, np.ndarray] = field(repr=False)
    splits: Mapping[Split, np.ndarray] = field(repr=False)
    store: Store = field(repr=False)

    def labels(self, split: Split) -> np.ndarray:
        """(N,) int64, in the order in which ``batches`` gives an unshuffled split."""
        return self.split_labels[split]

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:
        """(N,) int64: which sample of the split comes when, in ``batches`` with the same ``shuffle``."""
        return self._order(split, shuffle, torch.Generator())

    def batches(
        self, split: Split, batch_size: int, *, shuffle: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (N, C, H, W) float32 and (N,) int64 on the CPU; the last batch may be smaller.

        shuffle: a seed for order and augmentation, the same on every machine; None keeps the order, and
        augments as with seed 0.
        augment: "none", "crop", "crop_flip" or "auto". Raises ValueError for another one.
        """
        change = augmentation(augment, grey=self.grey)
        generator = torch.Generator()
        order = self._order(split, shuffle, generator)
        return self._batches(
            split, np.split(order, range(batch_size, len(order), batch_size)), change, generator
        )

    def _order(self, split: Split, shuffle: int | None, generator: torch.Generator) -> np.ndarray:
        """Seeds the generator, which augmentation then goes on with."""
        generator.manual_seed(shuffle or 0)
        count = len(self.splits[split])
        return np.arange(count) if shuffle is None else torch.randperm(count, generator=generator).numpy()

    def _batches(
        self, split: Split, chunks: list[np.ndarray], change: Augmentation, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        mean = torch.tensor(self.preprocessing.mean).view(-1, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(-1, 1, 1)
        pictures = self.store.read([self.splits[split][chunk] for chunk in chunks])
        for chunk, pixels in zip(chunks, pictures, strict=True):
            changed = change(torch.from_numpy(pixels), generator)
            labels = torch.from_numpy(self.split_labels[split][chunk])
            yield changed.float().div_(255).sub_(mean).div_(std), labels


def decoded(
    pictures: Pictures, sha256: str, preprocessing: ImagePreprocessing, cache: Path, limits: Limits
) -> tuple[Store, list[str]]:
    """Choose how to keep the pictures, and say so where it is slow."""
    size = len(pictures) * int(np.prod(preprocessing.shape))
    lazy = LazyStore(pictures, preprocessing, limits)
    if size > limits.decoded_bytes:
        return lazy, [f"Decoded, the pictures take {size:,} bytes: they are read anew for every batch."]
    shape = "x".join(map(str, preprocessing.shape))
    target = cache / "pictures" / f"{sha256}-{shape}-{preprocessing.resize}-{VERSION}.npy"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(target.parent).free < 2 * size:
            return lazy, [
                f"The disk has no room for {size:,} bytes of pictures: they are read for every batch."
            ]
        write(target, pictures, preprocessing, limits)
    return MappedStore(np.load(target, mmap_mode="r", allow_pickle=False).view(np.ndarray)), []


def write(target: Path, pictures: Pictures, preprocessing: ImagePreprocessing, limits: Limits) -> None:
    """Decode all pictures into one .npy: written in order, for a full disk is then an error and no crash."""
    shape = (len(pictures), *preprocessing.shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with written_whole(target) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in in_parallel(lambda index: fit(pictures[index], preprocessing, limits), len(pictures)):
            file.write(np.stack(batch).tobytes())
