"""One setting as a widget, chosen by its JSON schema; every kind that pydantic writes has one."""

import math
from collections.abc import Mapping
from typing import Any, cast

import streamlit as st
import yaml

Schema = Mapping[str, Any]
#: Stands in for a bound that may not be reached itself.
HAIR = 1e-9


def setting_field(name: str, schema: Schema, value: Any, *, key: str, defs: Schema | None = None) -> Any:
    """Draw it and return what it holds now, as a JSON value. defs: what `$ref` in the schema leads to."""
    schema, optional = _plain(schema, defs or {})
    label, told = name.replace("_", " ").capitalize(), schema.get("description")
    if "const" in schema or "enum" in schema:
        choices = list(schema.get("enum", [schema.get("const")]))
        if optional:
            _begin(key, value)
            value = None
        place = choices.index(value) if value in choices else None if optional else 0
        picked: Any = st.selectbox(
            label, choices, index=place, help=told, key=key, placeholder=_none(optional), format_func=str
        )
        return picked
    kind = schema.get("type")
    if kind == "boolean" and not optional:
        return st.checkbox(label, bool(value), help=told, key=key)
    if kind in ("integer", "number"):
        return _number(label, schema, value, told, key, optional=optional)
    if kind == "array" and _holds_text(schema, defs or {}):
        return _names(label, schema, value, told, key, optional=optional)
    if kind == "string":
        text = st.text_input(
            label,
            value or "",
            max_chars=schema.get("maxLength"),
            help=told,
            key=key,
            placeholder=_none(optional),
        )
        return text if text or not optional else None
    return _written(label, value, told, key)


def _plain(schema: Schema, defs: Schema) -> tuple[dict[str, Any], bool]:
    """Without references and without the alternative null; True where null is allowed."""
    if "$ref" in schema:
        found = defs[schema["$ref"].rpartition("/")[2]]
        schema = {**found, **{name: part for name, part in schema.items() if name != "$ref"}}
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    optional = len(kinds) < len(schema.get("anyOf", ()))
    if len(kinds) == 1:
        outer = {name: part for name, part in schema.items() if name != "anyOf"}
        return {**_plain(kinds[0], defs)[0], **outer}, optional
    return dict(schema), optional


def _begin(key: str, value: Any) -> None:
    """A box can only be emptied again where it was drawn empty: its first value comes by another way."""
    if value is not None and key not in st.session_state:
        st.session_state[key] = value


def _none(optional: bool) -> str | None:
    return "None" if optional else None


def _number(
    label: str, schema: Schema, value: float | None, told: str | None, key: str, *, optional: bool
) -> float | None:
    """An empty field is null; the recipe's check refuses it where null is not allowed."""
    integer = schema["type"] == "integer"
    inside = 1 if integer else HAIR
    bounds = (
        _bound(schema, "minimum", "exclusiveMinimum", inside),
        _bound(schema, "maximum", "exclusiveMaximum", -inside),
    )
    kind: type[int] | type[float] = int if integer else float  # Streamlit takes no mixture
    low, high, start = (None if number is None else kind(number) for number in (*bounds, value))
    if optional:
        _begin(key, start)
        start = None
    options: dict[str, Any] = {"min_value": low, "max_value": high, "value": start, "help": told, "key": key}
    options |= {"step": 1, "format": "%d"} if integer else {"step": step_of(schema), "format": "%g"}
    return cast("float | None", st.number_input(label, placeholder=_none(optional), **options))


def _bound(schema: Schema, name: str, exclusive: str, inside: float) -> float | None:
    if exclusive in schema:
        return float(schema[exclusive]) + inside
    return None if name not in schema else float(schema[name])


def step_of(schema: Schema) -> float:
    """Of a number's buttons: 0.05 for shares, else a tenth of the default's leading digit."""
    default = schema.get("default") or 0.0
    if schema.get("maximum", schema.get("exclusiveMaximum", math.inf)) <= 1 and (
        default == 0 or default >= 0.05
    ):
        return 0.05
    return float(10.0 ** (math.floor(math.log10(abs(default))) - 1)) if default else 0.1


def _holds_text(schema: Schema, defs: Schema) -> bool:
    items, _ = _plain(schema.get("items") or {}, defs)
    return items.get("type") == "string" or "enum" in items


def _names(
    label: str, schema: Schema, value: Any, told: str | None, key: str, *, optional: bool
) -> list[Any] | None:
    """Chosen from the choices there are, or typed one by one."""
    choices = schema["items"].get("enum")
    given = list(value or ())
    picked: list[Any] = st.multiselect(
        label, choices or given, given, help=told, key=key, max_selections=schema.get("maxItems"),
        accept_new_options=choices is None, placeholder="Choose" if choices else "Type a name, then Enter",
    )  # fmt: skip
    return None if optional and not picked else picked


def _written(label: str, value: Any, told: str | None, key: str) -> Any:
    """Whatever else there is, as it stands in the recipe's YAML; what does not fit is refused like there."""
    text = st.text_input(
        label,
        yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip(),
        help=told,
        key=key,
    )
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
