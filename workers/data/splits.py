"""Which sample serves for what. Nothing here looks at a picture."""

import numpy as np

from workers.base import SPLITS, Split

#: Shares of the samples that are cut; train keeps the rest. Calibration has bounds as well.
SHARES: dict[Split, float] = {"calibration": 0.05, "validation": 0.10, "test": 0.15}
CALIBRATION_BOUNDS = (100, 1000)
#: Below 500 samples, a hundred for calibration would leave too few to train on.
CALIBRATION_MOST = 0.2
#: Who comes first when a class has fewer samples than there are splits.
PRIORITY: tuple[Split, ...] = ("train", "validation", "test", "calibration")

#: In ``given``: the dataset does not say.
UNSAID = -1


def make_splits(
    labels: np.ndarray, given: np.ndarray, classes: tuple[str, ...], seed: int
) -> tuple[dict[Split, np.ndarray], list[str]]:
    """Cut the splits that are missing from train, stratified by label and seeded.

    labels: (N,) int64. given: (N,) index into SPLITS, or UNSAID, which counts as train.
    Returns the indices of each split, shuffled once by the seed so that the first few samples of a split
    are a fair draw, and sentences on what was done.
    """
    chance, place = np.random.default_rng(seed).random((2, len(labels)))
    home = np.where(given == UNSAID, SPLITS.index("train"), given)
    missing = tuple(split for split in SPLITS if split != "train" and not (home == SPLITS.index(split)).any())
    pool = np.flatnonzero(home == SPLITS.index("train"))
    if missing:
        home[pool] = deal(labels[pool], chance[pool], missing, len(classes))
    order = np.argsort(place, kind="stable")  # not by `chance`, which says who stayed in train
    splits = {split: order[home[order] == SPLITS.index(split)] for split in SPLITS}
    return splits, describe(labels[pool], missing, splits, classes, seed)


def deal(labels: np.ndarray, chance: np.ndarray, missing: tuple[Split, ...], classes: int) -> np.ndarray:
    """Give each sample of the pool its split, as an index into SPLITS."""
    sizes = np.bincount(labels, minlength=classes)
    takes = {split: apportion(sizes, cut_size(split, len(labels))) for split in missing}
    few = sizes <= len(missing)
    for place, split in enumerate(split for split in PRIORITY if split == "train" or split in missing):
        if split != "train":
            takes[split] = np.where(few, place < sizes, np.maximum(takes[split], 1))
    # Within each class, in random order: the first ones go to the first missing split, and so on.
    order = np.lexsort((chance, labels))
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    dealt = np.full(len(labels), SPLITS.index("train"))
    end = np.zeros(classes, dtype=np.int64)
    for split in missing:
        start, end = end, end + takes[split]
        inside = (rank >= start[labels[order]]) & (rank < end[labels[order]])
        dealt[order[inside]] = SPLITS.index(split)
    return dealt


def cut_size(split: Split, pool: int) -> float:
    """How many samples of the pool a missing split takes."""
    size = SHARES[split] * pool
    if split == "calibration":
        least, most = CALIBRATION_BOUNDS
        return float(min(max(size, min(least, CALIBRATION_MOST * pool)), most))
    return size


def apportion(sizes: np.ndarray, total: float) -> np.ndarray:
    """Share ``total`` among classes by size, by largest remainders."""
    quota = sizes * total / max(sizes.sum(), 1)
    whole: np.ndarray = np.floor(quota).astype(np.int64)
    left = round(total) - int(whole.sum())
    whole[np.argsort(whole - quota, kind="stable")[:left]] += 1
    return whole


def describe(
    pool_labels: np.ndarray,
    missing: tuple[Split, ...],
    splits: dict[Split, np.ndarray],
    classes: tuple[str, ...],
    seed: int,
) -> list[str]:
    """What was cut, and which classes were too small for it."""
    if not missing:
        return []
    made = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    sizes = " / ".join(f"{len(splits[split]):,} {split}" for split in SPLITS)
    sentences = [
        f"Made {made} {'split' if len(missing) == 1 else 'splits'} from train, stratified, "
        f"seed {seed} ({sizes})."
    ]
    counts = np.bincount(pool_labels, minlength=len(classes))
    tiny = np.flatnonzero((counts > 0) & (counts <= len(missing)))
    if len(tiny):
        names = ", ".join(f"{classes[index]} ({counts[index]})" for index in tiny[:5])
        more = f" and {len(tiny) - 5:,} more" if len(tiny) > 5 else ""
        sentences.append(f"Too few samples for every split in {len(tiny):,} classes: {names}{more}.")
    return sentences
