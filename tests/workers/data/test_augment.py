import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workers.data.augment import AUGMENTATIONS, augmentation, crop, crop_flip, flip


def batch(side: int = 32, count: int = 64, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def shifts(before: torch.Tensor, after: torch.Tensor, by: int) -> set[tuple[int, int]]:
    """All (top, left) at which ``after`` is a window of ``before`` with its edges mirrored."""
    side = before.shape[-1]
    padded = F.pad(before.float()[None], (by, by, by, by), mode="reflect")[0].to(torch.uint8)
    return {
        (top, left)
        for top in range(2 * by + 1)
        for left in range(2 * by + 1)
        if torch.equal(padded[:, top : top + side, left : left + side], after)
    }


def test_crop_shifts_each_picture_by_up_to_an_eighth() -> None:
    pixels = batch()
    found = [
        shifts(before, after, 4)
        for before, after in zip(pixels, crop(pixels, torch.Generator()), strict=True)
    ]
    assert all(len(one) == 1 for one in found)
    tops, lefts = zip(*(one.pop() for one in found), strict=True)
    assert set(tops) == set(lefts) == set(range(9))
    assert tops != lefts


def test_flip_mirrors_about_half_and_leaves_the_rest() -> None:
    pixels = batch(count=400)
    after = flip(pixels, torch.Generator())
    same = [torch.equal(one, other) for one, other in zip(pixels, after, strict=True)]
    mirrored = [torch.equal(one.flip(-1), other) for one, other in zip(pixels, after, strict=True)]
    assert all(one != other for one, other in zip(same, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_auto_never_mirrors_grey_data() -> None:
    assert augmentation("auto", grey=True) is crop
    assert augmentation("auto", grey=False) is crop_flip


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_keeps_the_shape_the_input_and_follows_its_seed(name: str) -> None:
    pixels = batch(side=9, channels=1)
    kept = pixels.clone()
    first, again, other = (
        AUGMENTATIONS[name](pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(pixels, kept)
    assert first.shape == pixels.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_picture_of_one_pixel_passes(name: str) -> None:
    pixels = batch(side=1)
    assert np.array_equal(AUGMENTATIONS[name](pixels, torch.Generator()), pixels)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'mixup'; there are none, crop, crop_flip and auto"):
        augmentation("mixup", grey=False)
