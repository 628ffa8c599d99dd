"""What a picture goes through before this model sees it, and a few pictures that went through it."""

from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from workers.base import ImagePreprocessing
from workers.errors import ModelRefused, SettingRefused
from workers.graph.architectures import native_size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessing_for(
    request: dict[str, Any], architecture: str | None, channels: int, size: tuple[int, int]
) -> ImagePreprocessing:
    """What the request says; else ImageNet's for torchvision at its own size, 0-1 pixels otherwise.

    size: (H, W). Raises ModelRefused for what no picture has.
    """
    if channels not in (1, 3):
        raise ModelRefused(
            "the first convolution",
            f"takes {channels:,} channels.",
            "Paredown takes grey pictures (1) or RGB (3).",
        )
    native = architecture is not None and native_size(architecture) == size[0] and channels == 3
    try:
        return ImagePreprocessing(
            channels=channels,
            height=size[0],
            width=size[1],
            resize=round(size[0] * 256 / 224) if native else None,
            mean=request["mean"] or (IMAGENET_MEAN if native else (0.0,) * channels),
            std=request["std"] or (IMAGENET_STD if native else (1.0,) * channels),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingRefused(
            "size, mean, std",
            f"do not fit the model ({first['msg']}; got {first['input']!r:.80}).",
            f"Give a size from 1 to 4096, and {channels} positive number(s) each for mean and std.",
        ) from error


def samples_for(request: dict[str, Any], preprocessing: ImagePreprocessing) -> torch.Tensor:
    """A few real pictures as the model would see them, (N, C, H, W); noise when the request brings none."""
    channels, height, width = preprocessing.shape
    if request["samples"] is None:
        return torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0))
    stored = np.load(request["samples"], allow_pickle=False)
    pictures = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
    pictures = nn.functional.interpolate(pictures, (height, width), mode="bilinear", antialias=True)
    if pictures.shape[1] != channels:
        pictures = pictures.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    return (pictures - mean) / torch.tensor(preprocessing.std)[:, None, None]
