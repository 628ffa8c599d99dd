"""How a model's file is to be read: architecture and preprocessing, with the defaults of the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import streamlit as st

from app.components.plain import plain
from app.imports import side_of_the_data
from workers.graph.architectures import architecture_names, native_size

NORMAL = "One number per channel, of pixels scaled to 0–1, as in training."
ANY_SIDE = "{} takes pictures of any size. Say the side of those it was trained on (Input) first."


@dataclass(frozen=True)
class Reading:
    """settings: what was given. missing: why a file cannot be read like this; None when it can."""

    settings: Mapping[str, Any]
    missing: str | None = None


def reading_settings(key: str, given: Mapping[str, Any] | None = None) -> Reading:
    """What is left empty is read from the file or its architecture, as in a terminal.

    given: what the fields begin with.
    """
    given = given or {}
    left, right = st.columns([4, 9])
    with left:
        architecture = _architecture(given.get("architecture"), key)
    with right:
        return preprocessing_settings(key, architecture, given)


def preprocessing_settings(key: str, architecture: str | None, given: Mapping[str, Any]) -> Reading:
    """Side, mean and std of the pictures. architecture: None for a file that brings its own."""
    columns = st.columns(3)
    native = None if architecture is None else native_size(architecture)
    with columns[0]:
        size = _size(key, architecture, native, given.get("size"))
    usual = native is not None and size in (None, native)
    defaults = {"mean": "ImageNet's", "std": "ImageNet's"} if usual else {"mean": "0", "std": "1"}
    texts = {
        name: column.text_input(
            name.capitalize(),
            _written(given.get(name)),
            key=f"{name}-{key}",
            placeholder=default,
            help=NORMAL,
        )
        for column, (name, default) in zip(columns[1:], defaults.items(), strict=True)
    }
    numbers = {name: _numbers(text) for name, text in texts.items()}
    settings = {"architecture": architecture, "size": size, **numbers}
    missing = None
    if architecture is not None and native is None and size is None:
        missing = ANY_SIDE.format(architecture)
    for name in (name for name, value in numbers.items() if value == []):
        missing = f"{name.capitalize()} is not a list of numbers. Write one per channel, as in .49, .48, .45."
    if missing:
        st.caption(f":material/info: {plain(missing)}")
    return Reading(settings, missing)


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(architecture_names()))


def _architecture(given: str | None, key: str) -> str | None:
    names = _names() if given is None or given in _names() else (given, *_names())
    chosen: str | None = st.selectbox(
        "Architecture", names, index=None if given is None else names.index(given), key=f"architecture-{key}",
        placeholder="Of weights only", accept_new_options=True,
        help="A file of weights does not tell its architecture. A .pt2 and an .onnx do.",
    )  # fmt: skip
    return chosen


def _size(key: str, architecture: str | None, native: int | None, given: int | None) -> int | None:
    """The side of the square pictures; that of the data where the architecture takes any."""
    side, told = given, "Side of the square pictures that the model takes."
    if architecture is not None and native is None:
        found = side_of_the_data()
        side = given or (None if found is None else found[0])
        told += "" if found is None else f" {found[0]} is that of {found[1]}."
    placeholder = "In the file" if architecture is None else "–" if native is None else f"{native}"
    size: int | None = st.number_input(
        "Input (px)", 8, 4096, side, key=f"size-{key}-{architecture}", placeholder=placeholder,
        help=told, disabled=architecture is None,
    )  # fmt: skip
    return size


def _written(numbers: Sequence[float] | None) -> str:
    return "" if numbers is None else ", ".join(f"{number:.6g}" for number in numbers)


def _numbers(text: str) -> list[float] | None:
    """None for nothing; an empty list, which nobody accepts, for what is not a list of numbers."""
    try:
        return [float(part) for part in text.split(",")] if text.strip() else None
    except ValueError:
        return []
