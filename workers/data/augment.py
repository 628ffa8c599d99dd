"""Random changes of training pictures, on whole batches.

An augmentation takes (N, C, H, W) uint8 and a generator, and returns the same shape; add one by adding
it to AUGMENTATIONS. All chance comes from the generator, so a seed gives the same batches everywhere.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]

#: Largest shift as a share of the side: 4 pixels of 32, as in the CIFAR recipes.
SHIFT = 1 / 8


def none(pixels: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Leave the batch as it is."""
    return pixels


def crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each picture by up to an eighth of its sides; what comes in is the mirrored edge."""
    count, _, height, width = pixels.shape
    down, right = int(height * SHIFT), int(width * SHIFT)
    tops = torch.randint(2 * down + 1, (count,), generator=generator).numpy()
    lefts = torch.randint(2 * right + 1, (count,), generator=generator).numpy()
    # numpy copies whole windows here, which is ten times as fast as torch's gather
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (down, down), (right, right)), mode="reflect")
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))
    return torch.from_numpy(windows[np.arange(count), :, tops, lefts])


def flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror about half of the pictures, left to right."""
    mirrored = (torch.rand(len(pixels), generator=generator) < 0.5).numpy()
    flipped = pixels.numpy().copy()
    flipped[mirrored] = flipped[mirrored][..., ::-1]
    return torch.from_numpy(flipped)


def crop_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, then mirror."""
    return flip(crop(pixels, generator), generator)


AUGMENTATIONS: dict[str, Augmentation] = {"none": none, "crop": crop, "crop_flip": crop_flip}


def augmentation(name: str, *, grey: bool) -> Augmentation:
    """Look up by name; "auto" never mirrors grey data: a mirrored digit is no digit.

    Raises ValueError for an unknown name.
    """
    if name == "auto":
        name = "crop" if grey else "crop_flip"
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}; there are {', '.join(AUGMENTATIONS)} and auto")
    return AUGMENTATIONS[name]
