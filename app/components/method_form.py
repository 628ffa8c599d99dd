"""A method's settings as fields, drawn from its JSON schema: the first ones in sight, the rest folded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from app.components.setting_field import setting_field
from app.recipes import Plain
from workers.base import Method
from workers.catalog import METHODS

COLUMNS, IN_SIGHT = 2, 4
#: (the step's settings, key) -> what the setting is now.
Field = Callable[[Plain, str], Any]


def method_form(step: Plain, *, key: str, own: Mapping[str, Field] | None = None) -> Plain:
    """Draw the fields of a step and return it with what they hold now.

    own: by the name of a setting, what draws it instead, in the width of the form and above the others.
    """
    method = METHODS[step["method"]]
    caution = getattr(method, "caution", "")
    if caution:
        st.caption(f":material/info: {caution}")
    return {"method": step["method"], **settings_form(method, step, key=key, own=own or {})}


def settings_form(method: type[Method], values: Plain, *, key: str, own: Mapping[str, Field]) -> Plain:
    """Fields without a value get their default. Folded ones that differ from theirs are unfolded."""
    schema = method.model_json_schema()
    properties = schema["properties"]
    defaults = {name: field.get("default") for name, field in properties.items()}
    given = {name: values.get(name, default) for name, default in defaults.items()}
    places = {name: st.container() for name in own}
    names = [name for name in method.settings() if name not in own]
    shown, folded = names[:IN_SIGHT], names[IN_SIGHT:]
    settings = _fields(shown, schema, given, key)
    if folded:
        changed = any(given[name] != defaults[name] for name in folded)
        with st.expander("More settings", expanded=changed, key=f"{key}-more"):
            settings |= _fields(folded, schema, given, key)
    for name, place in places.items():  # drawn last: they may depend on what the other fields hold now
        with place:
            settings[name] = own[name]({**given, **settings}, f"{key}-{name}")
    return {name: settings[name] for name in method.settings()}


def _fields(names: Sequence[str], schema: dict[str, Any], given: Plain, key: str) -> Plain:
    settings: Plain = {}
    for start in range(0, len(names), COLUMNS):  # a row each, so that fields of one row align
        row = names[start : start + COLUMNS]
        for column, name in zip(st.columns(COLUMNS), row, strict=False):
            with column:
                settings[name] = setting_field(
                    name,
                    schema["properties"][name],
                    given[name],
                    key=f"{key}-{name}",
                    defs=schema.get("$defs"),
                )
    return settings
