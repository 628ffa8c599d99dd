"""A method's settings as fields, drawn from its JSON schema: bounds, description, choices."""

from typing import Any

import streamlit as st

from app.recipes import Plain
from workers.catalog import METHODS

COLUMNS = 3
#: How fine a number that is no share can be set; learning rates and decays are small.
DIGITS = 5


def method_form(step: Plain, *, key: str) -> Plain:
    """Draw the fields of a step and return it with what they hold now."""
    properties = METHODS[step["method"]].model_json_schema()["properties"]
    columns = st.columns(COLUMNS)
    settings: Plain = {"method": step["method"]}
    for place, (name, schema) in enumerate(properties.items()):
        with columns[place % COLUMNS]:
            settings[name] = _field(name, schema, step.get(name, schema["default"]), f"{key}-{name}")
    return settings


def _field(name: str, schema: dict[str, Any], value: Any, key: str) -> Any:
    label, told = name.replace("_", " ").capitalize(), schema.get("description")
    if "enum" in schema:
        choices = schema["enum"]
        return st.selectbox(label, choices, index=choices.index(value), help=told, key=key)
    if schema["type"] == "boolean":
        return st.checkbox(label, value, help=told, key=key)
    if schema["type"] == "integer":
        low, high = schema.get("minimum"), schema.get("maximum")
        return st.number_input(label, low, high, int(value), 1, help=told, key=key)
    if schema["type"] == "number":
        return _number(label, schema, float(value), told, key)
    return st.text_input(label, str(value), help=told, key=key)


def _number(label: str, schema: dict[str, Any], value: float, told: str | None, key: str) -> float:
    """A bound that is not reached is kept away from by the smallest step that is shown."""
    coarse = name_is_share(schema)
    step = 0.05 if coarse else 10.0**-3
    edge = 0.01 if coarse else 10.0**-DIGITS
    low = schema["exclusiveMinimum"] + edge if "exclusiveMinimum" in schema else schema.get("minimum")
    high = schema["exclusiveMaximum"] - edge if "exclusiveMaximum" in schema else schema.get("maximum")
    form = "%.2f" if coarse else f"%.{DIGITS}f"
    return st.number_input(
        label, None if low is None else float(low), None if high is None else float(high), value, step,
        format=form, help=told, key=key,
    )  # fmt: skip


def name_is_share(schema: dict[str, Any]) -> bool:
    """Shares such as `amount` are set in steps of 0.05."""
    return str(schema.get("description", "")).startswith("Share")
