"""Every file of a folder or zip is looked at once: is it a picture, does it decode, has it colour?"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image

from workers.data.limits import Limits
from workers.data.pictures import (
    UnreadablePicture,
    decode,
    in_parallel,
    is_grey,
    peek,
    pixels_visited,
    settle,
)
from workers.data.samples import Samples, refuse_classes
from workers.data.tree import FORM, Tree, arrange, is_hidden, printable
from workers.errors import DatasetRefused
from workers.writing import written_whole

SUFFIXES = frozenset(".png .jpg .jpeg .jpe .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm".split())
FOREIGN, DAMAGED, COLOUR, GREY = range(4)
#: In the name of what is cached; raise it when the same bytes would be judged differently.
VERSION = 1


class Files(Protocol):
    """A folder or a zip: names with their sizes in bytes, and their contents."""

    @property
    def where(self) -> str: ...

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def read(self, name: str) -> bytes: ...


class EncodedPictures:
    """Pictures that are decoded when they are asked for."""

    def __init__(self, files: Files, names: tuple[str, ...], limits: Limits) -> None:
        self._files, self._names, self._limits = files, names, limits

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Image.Image:
        name = self._names[index]
        where = f"{self._files.where}: {printable(name)}"
        try:
            return decode(self._files.read(name), where, self._limits)
        except UnreadablePicture as damage:
            what = f"The picture can no longer be read ({damage})."
            raise DatasetRefused(where, what, "Bring the dataset again.") from damage


def from_files(name: str, files: Files, cache: Path, limits: Limits) -> Samples:
    """Read ImageFolder form. Pictures that do not decode are left out and named.

    Raises DatasetRefused when there is nothing to use, or a picture is dangerous to decode.
    """
    names = [file for file in sorted(files.sizes) if not is_hidden(file)]
    digests, sizes = read_headers(files, names, limits)
    states = decode_all(files, names, digests, cache, limits)
    position = {file: index for index, file in enumerate(names)}
    tree = arrange((file for file in names if states[position[file]] != FOREIGN), files.where)
    refuse_classes(tree.classes, files.where)
    rows = np.array([position[file] for file in tree.names])
    good = states[rows] > DAMAGED
    if not good.any():
        raise DatasetRefused(files.where, f"None of its {len(rows):,} pictures can be decoded.", FORM)
    kept = np.flatnonzero(good)
    foreign = [names[index] for index in np.flatnonzero(states == FOREIGN)]
    return Samples(
        name=name,
        pictures=EncodedPictures(files, tuple(tree.names[index] for index in kept), limits),
        labels=tree.labels[kept],
        given=tree.given[kept],
        classes=tree.classes,
        digests=digests[rows[kept]],
        paths=tuple(tree.paths[index] for index in kept),
        sizes=sizes[rows[kept]],
        grey=bool((states[rows[kept]] == GREY).all()),
        problems=problems(tree, good, foreign),
    )


def problems(tree: Tree, good: np.ndarray, foreign: list[str]) -> tuple[str, ...]:
    """What was left out, and what may surprise."""
    damaged = [tree.paths[index] for index in np.flatnonzero(~good)]
    return (
        *listed("Left out {} that cannot be decoded", damaged),
        *listed("Ignored {} outside of class folders", list(tree.outside)),
        *listed("Ignored {} of another kind", foreign),
        *numbers_out_of_order(tree.classes),
    )


def read_headers(files: Files, names: list[str], limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Digests (N, 32) and sizes (N, 2); zeros where a file is no picture. Decodes nothing.

    Raises DatasetRefused when the pictures together would take too long to decode.
    """

    def header(index: int) -> tuple[bytes, int, int, int]:
        name = names[index]
        if files.sizes[name] > limits.picture_bytes:
            if PurePosixPath(name).suffix.lower() not in SUFFIXES:
                return bytes(32), 0, 0, 0
            what = f"The picture takes {files.sizes[name]:,} bytes; {limits.picture_bytes:,} are allowed."
            raise DatasetRefused(
                f"{files.where}: {printable(name)}", what, "Save it smaller or leave it out."
            )
        data = files.read(name)
        digest = hashlib.sha256(data).digest()
        try:
            picture = peek(data, f"{files.where}: {printable(name)}", limits)
        except UnreadablePicture:
            return digest, 0, 0, 0
        return digest, picture.height, picture.width, pixels_visited(picture, data)

    found = [row for rows in in_parallel(header, len(names)) for row in rows]
    pixels = sum(row[3] for row in found)
    allowed = max(limits.free_pixels, limits.pixels_per_byte * sum(files.sizes[name] for name in names))
    if pixels > allowed:
        what = f"Its pictures have {pixels:,} pixels in all; {allowed:,} are allowed for files of this size."
        raise DatasetRefused(files.where, what, "Scale the pictures down to what a model takes in.")
    digests = np.frombuffer(b"".join(row[0] for row in found), dtype=np.uint8).reshape(-1, 32)
    return digests, np.array([row[1:3] for row in found], dtype=np.int64).reshape(-1, 2)


def decode_all(
    files: Files, names: list[str], digests: np.ndarray, cache: Path, limits: Limits
) -> np.ndarray:
    """(N,) FOREIGN, DAMAGED, COLOUR or GREY; remembered in the cache: a large set takes minutes."""
    key = hashlib.sha256("\0".join(names).encode(errors="surrogateescape") + digests.tobytes()).hexdigest()
    remembered = cache / "inspections" / f"{key}-{VERSION}.npy"
    if remembered.is_file():
        states: np.ndarray = np.load(remembered, allow_pickle=False)
        return states

    def state(index: int) -> int:
        name = names[index]
        if files.sizes[name] > limits.picture_bytes:
            return FOREIGN
        try:
            picture = peek(files.read(name), f"{files.where}: {printable(name)}", limits)
            picture.draft(
                "RGB" if picture.mode == "RGB" else None, (1, 1)
            )  # JPEG: all bits, an eighth of the pixels
            return GREY if is_grey(settle(picture)) else COLOUR
        except UnreadablePicture:
            return DAMAGED if PurePosixPath(name).suffix.lower() in SUFFIXES else FOREIGN

    states = np.array([one for part in in_parallel(state, len(names)) for one in part], dtype=np.uint8)
    with written_whole(remembered) as partial, partial.open("wb") as file:
        np.save(file, states)
    return states


def listed(sentence: str, names: list[str]) -> list[str]:
    """One sentence with a count and the first names, or none."""
    if not names:
        return []
    first = ", ".join(printable(name) for name in names[:5])
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    things = "1 file" if len(names) == 1 else f"{len(names):,} files"
    return [f"{sentence.format(things)}: {first}{more}."]


def numbers_out_of_order(classes: tuple[str, ...]) -> list[str]:
    """Folders 0 … 10 sort as 0, 1, 10, 2: as torchvision does, yet not as many expect."""
    if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != list(classes):
        return [
            f"Classes are in alphabetical order, as torchvision's ImageFolder: {', '.join(classes[:4])} …"
        ]
    return []
