"""ImageFolder form: labels and splits from the names of files."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workers.base import SPLITS, Split
from workers.data.splits import UNSAID
from workers.errors import DatasetRefused

FORM = "Use class/picture.png, or train/class/picture.png with validation/, test/ and calibration/ beside it."

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "calibration": "calibration",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Tree:
    """Files in order of name, with their class and split.

    names: as in the source. paths: without a common top folder, the same for a folder and a zip of it.
    labels: (N,) int64. given: (N,) index into SPLITS, or UNSAID. outside: files in no class folder.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    given: np.ndarray
    classes: tuple[str, ...]
    outside: tuple[str, ...]


def arrange(names: Iterable[str], where: str) -> Tree:
    """Read class and split from each name. Raises DatasetRefused when the folders do not agree."""
    parted = sorted(tuple(name.split("/")) for name in names)
    skipped = common_top(parted)
    split_form = has_splits(parted, skipped, where)
    depth = skipped + split_form
    inside = [parts for parts in parted if len(parts) > depth + 1]
    outside = tuple("/".join(parts) for parts in parted if len(parts) <= depth + 1)
    if not inside:
        raise DatasetRefused(where, "There are no pictures in class folders.", FORM)
    folders = [parts[depth] for parts in inside]
    classes = tuple(sorted(set(folders)))
    index = {name: position for position, name in enumerate(classes)}
    splits = [SPLITS.index(SPLIT_NAMES[parts[skipped].lower()]) if split_form else UNSAID for parts in inside]
    tree = Tree(
        names=tuple("/".join(parts) for parts in inside),
        paths=tuple("/".join(parts[skipped:]) for parts in inside),
        labels=np.array([index[folder] for folder in folders], dtype=np.int64),
        given=np.array(splits, dtype=np.int64),
        classes=classes,
        outside=outside,
    )
    refuse_other_classes(tree, where)
    return tree


def is_hidden(name: str) -> bool:
    """What the Finder and version control leave behind."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def printable(name: str) -> str:
    """A file's name as a terminal and a page may show it."""
    return name if name.isprintable() else ascii(name)[1:-1]


def common_top(parted: list[tuple[str, ...]]) -> int:
    """How many folders at the top hold everything and name nothing."""
    skipped = 0
    while parted and all(
        len(parts) > skipped + 2
        and parts[skipped] == parted[0][skipped]
        and parts[skipped].lower() not in SPLIT_NAMES
        for parts in parted
    ):
        skipped += 1
    return skipped


def has_splits(parted: list[tuple[str, ...]], skipped: int, where: str) -> bool:
    """Whether the first folder is the split: a split's name, with folders and no pictures below it.

    A class may be called "test"; then pictures lie right below it.
    """
    tops = {parts[skipped] for parts in parted if len(parts) > skipped + 1}
    flat = {parts[skipped] for parts in parted if len(parts) == skipped + 2}
    named = {top for top in tops if top.lower() in SPLIT_NAMES}
    if not named or named & flat:
        return False
    if unknown := sorted(tops - named):
        raise DatasetRefused(
            where,
            f"{unknown[0]!r} stands beside {sorted(named)[0]!r} but is no split.",
            f"Leave it out. {FORM}",
        )
    return True


def refuse_other_classes(tree: Tree, where: str) -> None:
    """Every split has the same classes, except that calibration may do with fewer."""
    present = {
        split: set(tree.labels[tree.given == position].tolist()) for position, split in enumerate(SPLITS)
    }
    train = present["train"]
    for split, labels in present.items():
        lacking = train - labels if split != "calibration" else set()
        if train and labels and (labels - train or lacking):
            name = tree.classes[min(labels - train or lacking)]
            have, lack = (split, "train") if labels - train else ("train", split)
            raise DatasetRefused(
                where,
                f"{split} has {len(labels)} classes and train has {len(train)}: "
                f"{name!r} is in {have} and not in {lack}.",
                "Give every split the same class folders.",
            )
