"""Layers as a person names them: by patterns, and with the nearest names where one is not there."""

import difflib
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from workers.errors import StepFailed

_OF_MODULE = re.compile(r"[._](?:weight|bias)")
#: What parameters are called besides their module.
_PARAMETER = re.compile(
    r"^(?:segment_\d+/)+|[._](?:weight|bias)(?:_quantized|_bias|_fp16|_bf16)*$|_quantized$"
)


def module_of(parameter: str) -> str | None:
    """The module whose parameter is called so in a file; None where exporters wrote it under another name."""
    return bare_name(parameter) if _OF_MODULE.search(parameter) else None


def bare_name(name: str) -> str:
    """Without what is added for a segment, for the kind of parameter and for how it is stored."""
    return _PARAMETER.sub("", name)


def named_layers(patterns: str, layers: Collection[str], *, where: str, what: str) -> frozenset[str]:
    """The layers that the patterns, separated by commas, name, also by the module that holds them.

    what: layers are called so. Raises StepFailed at a pattern that names none.
    """
    found: set[str] = set()
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        named = {layer for layer in layers if fnmatchcase(layer, pattern) or layer.startswith(f"{pattern}.")}
        if not named:
            raise no_such_layer(pattern, layers, where=where, what=what)
        found |= named
    return frozenset(found)


def no_such_layer(name: str, layers: Iterable[str], *, where: str, what: str) -> StepFailed:
    known = list(layers)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    return StepFailed(
        where, f"{name!r} is no {what} of this model.", f"Similar names are {', '.join(close)}."
    )
