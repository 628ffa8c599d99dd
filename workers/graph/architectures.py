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

from workers.errors import ModelRefused, SomethingMissing
from workers.graph.resnets import RESNETS

Build = Callable[..., nn.Module]


def architecture_names() -> tuple[str, ...]:
    """Every name that `--arch` takes without optional packages."""
    return (*RESNETS, *torchvision.models.list_models(module=torchvision.models))


def native_size(name: str) -> int | None:
    """Side of the pictures the published weights of a torchvision architecture were trained on."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    weights = torchvision.models.get_model_weights(name)
    return int(next(iter(weights)).transforms().crop_size[0])


def build_for(name: str, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The architecture with these weights in it, in evaluation mode.

    Raises ModelRefused with the first differing names when weights and architecture do not belong together.
    """
    model = min(
        (_fitted(build, weights) for build in _variants(name, weights)),
        key=lambda candidate: len(_differences(candidate, weights)),
    )
    differences = _differences(model, weights)
    if differences:
        raise ModelRefused(
            f"--arch {name}",
            f"does not fit the weights: {'; '.join(differences[:3])}"
            + (f" and {len(differences) - 3} more." if len(differences) > 3 else "."),
            "Name the architecture that was trained, or export the model itself: "
            "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2').",
        )
    state = model.state_dict()  # carries the layers' versions, which a plain dict would lose
    state.update(weights)
    model.load_state_dict(state, strict=True, assign=True)
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
        raise SomethingMissing(f"--arch {name}", "needs timm.", "pip install 'paredown[timm]'")
    close = difflib.get_close_matches(name, architecture_names(), n=3)
    raise ModelRefused(
        f"--arch {name}",
        "is not an architecture that Paredown knows.",
        f"Did you mean {' or '.join(close)}?" if close else "`paredown architectures` lists them.",
    )


def _fitted(build: Build, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """Built with as many classes and input channels as the weights have."""
    probes = [_without_data(build, classes).state_dict() for classes in (1000, 7)]
    heads = [key for key, tensor in probes[0].items() if tensor.shape != probes[1][key].shape]
    classes = {weights[key].shape[0] for key in heads if key in weights and weights[key].dim() > 0}
    if len(classes) != 1 or not 2 <= (count := classes.pop()) <= 1_000_000:
        count = 1000
    model = build(num_classes=count)
    _fit_channels(model, weights)
    return model


def _without_data(build: Build, classes: int) -> nn.Module:
    """Only names and shapes are wanted; most architectures can be built without allocating weights."""
    try:
        with torch.device("meta"):
            return build(num_classes=classes)
    except NotImplementedError:  # computes its widths with tensors, as RegNet does
        return build(num_classes=classes)


def _fit_channels(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace the first convolution where the weights take grey (or other) instead of RGB pictures."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = weights.get(f"{name}.weight")
            if weight is None or weight.dim() != 4 or weight.shape[1] == module.in_channels:
                return
            settings: dict[str, Any] = {
                key: getattr(module, key)
                for key in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
            }
            owner = model.get_submodule(name.rpartition(".")[0])
            first = nn.Conv2d(weight.shape[1], bias=module.bias is not None, **settings)
            setattr(owner, name.rpartition(".")[2], first)
            return


def _differences(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> list[str]:
    own = model.state_dict()
    missing = [f"{key} is missing" for key in own if key not in weights]
    extra = [f"{key} belongs to no layer" for key in weights if key not in own]
    shapes = [
        f"{key} is {list(weights[key].shape)}, not {list(own[key].shape)}"
        for key in own
        if key in weights and own[key].shape != weights[key].shape
    ]
    return [*shapes, *missing, *extra]
