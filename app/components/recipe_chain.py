"""A recipe as a vertical chain of steps, with presets above it and its YAML as the other side of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st
import yaml

from app.components.error_box import error_box
from app.components.linked import remember
from app.components.method_form import method_form
from app.components.plain import plain
from app.recipes import Plain, added, moved, presets, whole
from workers.catalog import METHODS
from workers.errors import ParedownError
from workers.recipe import parse_recipe

#: (the steps before, the step's settings, key) -> what the setting is now.
OwnField = Callable[[Sequence[Plain], Plain, str], Any]


def recipe_chain(own: Mapping[str, Mapping[str, OwnField]]) -> Plain:
    """Draw the recipe of the URL, let it be edited, and return it as it is now.

    own: by method and setting what draws it instead of a field of its kind.
    """
    recipe = _from_url()
    found = presets()
    picked = st.pills(
        "Presets", list(found), key=f"preset-{_round()}",
        help="\n\n".join(f"**{name}** {preset.about}" for name, preset in found.items()),
    )  # fmt: skip
    if picked:
        _replace(found[picked].recipe)
    form, text = st.tabs(["Form", "YAML"], key="side")  # both are drawn: no change is lost by changing sides
    with form:
        recipe = _form(recipe, own)
    with text:
        _yaml(recipe)
    _write(recipe)
    return recipe


def _from_url() -> Plain:
    """The first preset where the URL has none; also, and it is said, where it cannot be read."""
    first = next(iter(presets().values())).recipe
    text = st.query_params.get("recipe")
    if text is None:
        return first
    if text == st.session_state.get("recipe_written"):  # by this form, perhaps half-way through a change
        return dict(json.loads(text))
    try:
        return whole(json.loads(text))
    except ParedownError as error:
        why = f"{error.where}: {error.what}"
    except (ValueError, TypeError, KeyError):
        why = "it was cut short."
    st.warning(
        f"The recipe in this link cannot be used; {plain(why, 600)} "
        f"The preset {first['name']} stands here instead."
    )
    return first


def _write(recipe: Plain) -> None:
    text = json.dumps(recipe, separators=(",", ":"))
    st.session_state["recipe_written"] = text
    remember({"recipe": text})


def _round() -> int:
    """Part of every field's key: a recipe that came from elsewhere gets new fields, with its own values."""
    return int(st.session_state.get("recipe_round", 0))


def _replace(recipe: Plain) -> None:
    st.session_state["recipe_round"] = _round() + 1
    _write(recipe)
    st.rerun()


def _form(recipe: Plain, own: Mapping[str, Mapping[str, OwnField]]) -> Plain:
    name = st.text_input("Name", recipe["name"], max_chars=100, key=f"name-{_round()}").strip() or "Unnamed"
    steps = list(recipe["steps"])
    for index in range(len(steps)):
        with st.container(border=True):
            changed = _heading(steps, index)
            if changed is not None:
                _replace({"name": name, "steps": changed})
            drawn = own.get(steps[index]["method"], {})
            fields = {name: partial(field, steps[:index]) for name, field in drawn.items()}
            steps[index] = method_form(steps[index], key=f"step-{_round()}-{index}", own=fields)
    if not steps:
        st.caption("No step: this measures the model as it is, the baseline.")
    _add(name, steps)
    return {"name": name, "steps": steps}


def _heading(steps: list[Plain], index: int) -> list[Plain] | None:
    """Title and buttons of a step; the new steps where one was pressed."""
    method = METHODS[steps[index]["method"]]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{index + 1}. {method.title}**", help=method.__doc__)
        st.space("stretch")
        for by, icon, told in ((-1, "arrow_upward", "Move up"), (1, "arrow_downward", "Move down")):
            order = moved(steps, index, by)
            key = f"move{by}-{_round()}-{index}"
            if len(steps) > 1 and st.button(
                "", icon=f":material/{icon}:", help=told, key=key, type="tertiary", disabled=order is None
            ):
                return order
        if st.button(
            "", icon=":material/close:", help="Remove", key=f"remove-{_round()}-{index}", type="tertiary"
        ):
            return [*steps[:index], *steps[index + 1 :]]
    return None


def _add(name: str, steps: list[Plain]) -> None:
    fitting = {method: order for method in METHODS if (order := added(steps, method)) is not None}
    with st.container(horizontal=True):
        for method, order in fitting.items():
            if st.button(METHODS[method].title, icon=":material/add:", key=f"add-{_round()}-{method}"):
                _replace({"name": name, "steps": order})


def _yaml(recipe: Plain) -> None:
    """The same as text; once what is written there can be read it is the recipe."""
    written = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    # Another recipe is another text field: what the form changes shows at once.
    text = st.text_area("Recipe", written, height=380, key=f"yaml-{_round()}-{hash(written)}")
    if text == written:
        return
    try:
        read = parse_recipe(text, "recipe.yaml")
    except ParedownError as error:
        error_box({"where": error.where, "what": error.what, "fix": error.fix})
        st.caption("The recipe stays as it was until this can be read.")
        return
    _replace(whole(read.model_dump(mode="json")))
