"""A dataset: labelled pictures in four splits, named by what is in them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workers.base import SPLITS, Preprocessing, Split
from workers.data.archive import open_archive
from workers.data.builtin import BUILTIN
from workers.data.folder import open_folder
from workers.data.inspection import from_files
from workers.data.limits import DEFAULTS, Limits
from workers.data.loading import ImageData, decoded
from workers.data.npz import from_npz
from workers.data.pictures import Pictures
from workers.data.samples import Samples
from workers.data.splits import make_splits
from workers.data.tree import FORM
from workers.errors import DatasetRefused

ACCEPTED = f"Give a folder, a .zip, an .npz, or one of {', '.join(BUILTIN)}."


@dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled pictures.

    sha256: of classes, labels, pictures and splits; the same data with the same seed has the same one.
    labels: (N,) int64. splits: indices of samples, in an order shuffled once by the seed.
    channels: 1 when no picture has colour. smallest, largest: (height, width), by area.
    problems: what was found and done about it, one sentence each.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    splits: dict[Split, np.ndarray] = field(repr=False)
    channels: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    problems: tuple[str, ...]
    limits: Limits
    pictures: Pictures = field(repr=False)

    def specimens(self, count: int) -> np.ndarray:
        """A few pictures as they are, (count, H, W, 3) uint8, in the size of the first."""
        pictures = [self.pictures[int(index)].convert("RGB") for index in self.splits["train"][:count]]
        return np.stack([np.asarray(picture.resize(pictures[0].size)) for picture in pictures])

    def prepare(self, preprocessing: Preprocessing, cache: Path) -> ImageData:
        """Decode for one model: once into the cache when that is small, else batch by batch.

        Raises DatasetRefused when a picture can no longer be read.
        """
        found = list(self.problems)
        if self.channels != preprocessing.channels:
            kinds = {1: "grey", 3: "colour"}
            found.append(
                f"The pictures are {kinds[self.channels]} and the model takes "
                f"{kinds[preprocessing.channels]}: they are converted."
            )
        store, sentences = decoded(self.pictures, self.sha256, preprocessing, cache, self.limits)
        return ImageData(
            classes=self.classes,
            problems=(*found, *sentences),
            preprocessing=preprocessing,
            grey=self.channels == 1,
            split_labels={split: self.labels[indices] for split, indices in self.splits.items()},
            splits=self.splits,
            store=store,
        )


def open_dataset(source: str | Path, *, cache: Path, seed: int, limits: Limits = DEFAULTS) -> Dataset:
    """Read, check and split a folder or zip in ImageFolder form, an .npz, or a data set known by its word.

    cache: a folder that this may fill. seed: for the splits that are missing.
    Raises DatasetRefused, and SomethingMissing for a word whose data cannot be had.
    """
    samples = read(source, cache, limits)
    check(samples, limits)
    splits, sentences = make_splits(samples.labels, samples.given, samples.classes, seed)
    areas = samples.sizes.prod(axis=1)
    smallest, largest = samples.sizes[areas.argmin()].tolist(), samples.sizes[areas.argmax()].tolist()
    return Dataset(
        name=samples.name,
        sha256=identity(samples, splits),
        classes=samples.classes,
        labels=samples.labels,
        splits=splits,
        channels=1 if samples.grey else 3,
        smallest=(smallest[0], smallest[1]),
        largest=(largest[0], largest[1]),
        problems=(*sentences, *samples.problems, *empty_classes(samples), *duplicates(samples, splits)),
        limits=limits,
        pictures=samples.pictures,
    )


def read(source: str | Path, cache: Path, limits: Limits) -> Samples:
    """Choose the reader by what the source holds, not by its name."""
    if isinstance(source, str) and source in BUILTIN:
        return BUILTIN[source](cache)
    path = Path(source)
    if path.is_dir():
        root = path.resolve()
        return from_files(root.name, open_folder(root, limits), cache, limits)
    if not path.is_file():
        raise DatasetRefused(str(source), "There is no file or folder of this name.", ACCEPTED)
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] != b"PK":
        what = (
            "The file is empty."
            if not start
            else f"This is neither a zip nor an .npz; it begins with {start!r}."
        )
        raise DatasetRefused(path.name, what, ACCEPTED)
    archive = open_archive(path, limits)
    if path.suffix == ".npz" or {"images.npy", "labels.npy"} & archive.members.keys():
        return from_npz(path.stem, archive, limits)
    return from_files(path.stem, archive, cache, limits)


def check(samples: Samples, limits: Limits) -> None:
    """What no reader can do without, whatever the form."""
    if len(samples.labels) > limits.samples:
        what = f"There are {len(samples.labels):,} samples; {limits.samples:,} are allowed."
        raise DatasetRefused(samples.name, what, "Bring fewer samples.")
    present = np.unique(samples.labels)
    if len(present) < 2:
        what = f"Every sample is of class {samples.classes[present[0]]!r}."
        raise DatasetRefused(samples.name, what, f"Bring at least two classes. {FORM}")
    found = {SPLITS[position] for position in np.unique(samples.given) if position >= 0}
    if found and "train" not in found:
        what = f"There is {' and '.join(sorted(found))} but no train split."
        raise DatasetRefused(
            samples.name, what, "Add one: training and the missing splits are taken from it."
        )


def identity(samples: Samples, splits: dict[Split, np.ndarray]) -> str:
    """SHA-256 over everything that a result can depend on."""
    digest = hashlib.sha256(b"paredown dataset 1")
    parts = [
        "\0".join(samples.classes).encode(),
        "\0".join(samples.paths).encode(errors="surrogateescape"),
        samples.labels.astype("<i8").tobytes(),
        samples.digests.tobytes(),
        *(splits[split].astype("<i8").tobytes() for split in SPLITS),
    ]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def empty_classes(samples: Samples) -> list[str]:
    """Classes that are named and have no sample."""
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    names = [samples.classes[index] for index in np.flatnonzero(counts == 0)]
    if not names:
        return []
    return [f"{len(names):,} of {len(counts):,} classes have no sample: {', '.join(names[:5])}."]


def duplicates(samples: Samples, splits: dict[Split, np.ndarray]) -> list[str]:
    """Exactly the same picture in two splits makes the second one look too good."""
    _, same = np.unique(np.ascontiguousarray(samples.digests).view("V32")[:, 0], return_inverse=True)
    seen = np.zeros((int(same.max()) + 1, len(SPLITS)), dtype=bool)
    for position, split in enumerate(SPLITS):
        seen[same[splits[split]], position] = True
    count = int((seen.sum(axis=1) > 1).sum())
    if not count:
        return []
    return [
        f"{count:,} pictures are in more than one split, byte for byte; figures on them flatter the model."
    ]
