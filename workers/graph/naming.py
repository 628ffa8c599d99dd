"""Layers as a person names them: by patterns, and with the nearest names where one is not there."""

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from workers.errors import StepFailed


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
