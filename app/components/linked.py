"""Choices that live in the URL: a link sent to a colleague shows what its sender saw."""

from collections.abc import Mapping, Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator


def linked_choice(
    place: DeltaGenerator, label: str, options: Mapping[str, str], *, key: str, belongs: Sequence[str] = ()
) -> str:
    """A select box of options (value -> name) whose value stands in the URL under `key`, the default too.

    A value that is no longer an option gives the first one. belongs: what else in the URL is about this
    choice, and is forgotten with it.
    """
    values, names = list(options), distinct(options)
    if st.session_state.get(key) not in values:
        wanted = st.query_params.get(key)
        st.session_state[key] = wanted if wanted in values else values[0]
    value = place.selectbox(
        label, values, format_func=names.__getitem__, key=key,
        on_change=lambda: remember(dict.fromkeys(belongs)),
    )  # fmt: skip
    remember({key: value})
    return value


def distinct(options: Mapping[str, str]) -> dict[str, str]:
    """The names, numbered where several are alike, the last (oldest) first: a select box tells them apart by
    nothing else."""
    given: list[str] = []
    names: dict[str, str] = {}
    for value, name in reversed(list(options.items())):
        given.append(name)
        names[value] = f"{name} ({given.count(name)})" if given.count(name) > 1 else name
    return names


def begin(key: str, name: str, default: float, *, low: float, high: float) -> None:
    """Start a number at what the URL says under `name`, else at its default; once drawn it stays as it is."""
    if key not in st.session_state:
        try:
            value = float(st.query_params.get(name, default))
        except ValueError:
            value = default
        st.session_state[key] = min(max(value if value == value else default, low), high)


def remember(values: Mapping[str, str | None]) -> None:
    """Write to the URL what differs from it; None removes a name."""
    for name, value in values.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value
