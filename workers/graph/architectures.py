"""Architectures by name, built to fit a file of weights: class count and input channels are read from the
weights, not asked.
"""

import difflib
import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

from workers.errors import SettingRefused, SomethingMissing
from workers.graph.resnets import RESNETS

Build = Callable[..., nn.Module]
MAX_CLASSES = 100_000


def architecture_names() -> tuple[str, ...]:
    """Every name that is known without optional packages."""
    return (*RESNETS, *torchvision.models.list_models(module=torchvision.models))


def native_size(name: str) -> int | None:
    """Side of the pictures the published weights of a torchvision architecture were trained on."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    weights = torchvision.models.get_model_weights(name)
    return int(next(iter(weights)).transforms().crop_size[0])


def build_for(name: str, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The architecture with these weights in it as float32, in evaluation mode.

    Raises SettingRefused with the first differing names when weights and architecture do not belong together.
    """
    tried = []
    for build in _variants(name, weights):
        fitted = partial(_fitted, build, weights, _classes(build, weights))
        # What the weights claim is compared before anything is allocated.
        differences = _differences(_without_data(fitted), weights)
        tried.append((len(differences), differences))
        if not differences:
            model = fitted()
            state = model.state_dict()  # carries the layers' versions, which a plain dict would lose
            state.update(weights)
            model.load_state_dict(state, strict=True, assign=True)
            return model.float().eval()
    _, differences = min(tried)
    more = f" and {len(differences) - 3:,} more" if len(differences) > 3 else ""
    raise SettingRefused(
        f"architecture {name}",
        f"does not fit the weights: {'; '.join(differences[:3])}{more}.",
        "Choose the architecture that was trained, or export the model itself: "
        "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2').",
    )


def build_new(name: str, *, classes: int, channels: int, seed: int) -> nn.Module:
    """The architecture with fresh weights, in evaluation mode. Raises ModelRefused for an unknown name."""
    build = _variants(name, {})[-1]  # without auxiliary heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(num_classes=classes)
        _fit_channels(model, channels)
    return model.eval()


def _variants(name: str, weights: Mapping[str, torch.Tensor]) -> list[Build]:
    """Builders to try; some architectures come with or without auxiliary heads."""
    if name in RESNETS:
        first = next((w for w in weights.values() if w.dim() == 4), None)
        width = 16 if first is None else first.shape[0]
        return [partial(RESNETS[name], width=width)]
    if name in torchvision.models.list_models(module=torchvision.models):
        build = partial(torchvision.models.get_model, name, weights=None)
        if name in ("googlenet", "inception_v3"):
            build = partial(build, init_weights=False)
            return [build, partial(build, aux_logits=False)]
        return [build]
    if importlib.util.find_spec("timm") is not None:
        import timm

        if timm.is_model(name):
            return [partial(timm.create_model, name, pretrained=False)]
    elif name.startswith("timm/") or "." in name:
        raise SomethingMissing(f"architecture {name}", "needs timm.", "pip install 'paredown[timm]'")
    close = difflib.get_close_matches(name, architecture_names(), n=3)
    raise SettingRefused(
        f"architecture {name}",
        "is not one that Paredown knows.",
        f"Did you mean {' or '.join(close)}?" if close else "Choose one of torchvision's or timm's.",
    )


def _fitted(build: Build, weights: Mapping[str, torch.Tensor], classes: int) -> nn.Module:
    """Built with that many classes and as many input channels as the weights have."""
    model = build(num_classes=classes)
    first = next((f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    weight = weights.get(first or "")
    if weight is not None and weight.dim() == 4:
        _fit_channels(model, weight.shape[1])
    return model


def _classes(build: Build, weights: Mapping[str, torch.Tensor]) -> int:
    """Read from the layers whose shape depends on the number of classes; 1000 where they disagree."""
    one, other = (_without_data(partial(build, num_classes=n)).state_dict() for n in (1000, 7))
    heads = [key for key, tensor in one.items() if tensor.shape != other[key].shape]
    classes = {weights[key].shape[0] for key in heads if key in weights and weights[key].dim() > 0}
    count = classes.pop() if len(classes) == 1 else 0
    return count if 2 <= count <= MAX_CLASSES else 1000


def _without_data(build: Callable[[], nn.Module]) -> nn.Module:
    """Only names and shapes are wanted; most architectures can be built without allocating weights."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # computes its widths with tensors, as RegNet does
        return build()


def _fit_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution where grey (or other) instead of RGB pictures are wanted."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            if channels == module.in_channels:
                return
            settings: dict[str, Any] = {
                key: getattr(module, key)
                for key in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
            }
            owner = model.get_submodule(name.rpartition(".")[0])
            first = nn.Conv2d(channels, bias=module.bias is not None, **settings)
            setattr(owner, name.rpartition(".")[2], first)
            return


def _differences(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> list[str]:
    own = model.state_dict()
    missing = [f"{key} is missing" for key in own if key not in weights]
    extra = [f"{key[:120]} belongs to no layer" for key in weights if key not in own]
    common = [(key, weights[key], own[key]) for key in own if key in weights]
    shapes = [
        f"{key} is {list(given.shape)}, not {list(wanted.shape)}"
        for key, given, wanted in common
        if given.shape != wanted.shape
    ]
    kinds = [
        f"{key} holds {given.dtype}"
        for key, given, wanted in common
        if given.is_floating_point() != wanted.is_floating_point()
    ]
    return [*shapes, *kinds, *missing, *extra]
