"""Every kind of setting that a method can have is a field, and what it gives is what a recipe takes."""

from enum import Enum
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field
from streamlit.testing.v1 import AppTest

from app.components.setting_field import step_of
from workers.base import Candidate, Context, Method


class Order(Enum):
    FIRST, LAST = "first", "last"


class MadeUp(Method):
    """One field of each kind."""

    title, family, source = "Made up", "pruning", "none"
    caution: ClassVar[str] = "Nothing runs faster."

    choice: Literal["l1", "l2"] = Field("l1", description="An enum.")
    bits: Literal[4, 8] = Field(8, description="An enum of numbers.")
    order: Order = Field(Order.FIRST, description="A class of choices.")
    count: int = Field(3, gt=0, le=5, description="A bounded integer.")
    share: float = Field(0.5, gt=0, lt=1, description="A bounded number.")
    switch: bool = Field(True, description="A boolean.")
    keep: tuple[str, ...] = Field((), description="A list of names.")
    kinds: list[Literal["conv", "linear"]] = Field(["conv"], description="A list of choices.")
    name: str = Field("x", max_length=9, description="Text.")
    only: Literal["one"] = Field("one", description="A constant.")
    maybe_choice: Literal["a", "b"] | None = Field(None, description="A choice or nothing.")
    maybe_number: float | None = Field(None, ge=0, le=10, description="A number or nothing.")
    maybe_text: str | None = Field(None, description="Text or nothing.")
    maybe_keep: list[str] | None = Field(None, description="Names or nothing.")
    maybe_switch: bool | None = Field(None, description="Yes, no or nothing.")
    sizes: tuple[int, int] = Field((3, 3), description="A pair.")
    either: int | Literal["auto"] = Field("auto", description="A number or a word.")

    def apply(self, model: Candidate, context: Context) -> Candidate:  # noqa: ARG002
        return model


DEFAULTS = {**MadeUp().model_dump(mode="json"), "method": "made_up"}


def script() -> None:
    import streamlit as st

    from app.components.method_form import method_form

    given = st.session_state["given"]
    st.session_state["made"] = method_form(given, key="f")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    from app.components import method_form

    monkeypatch.setattr(method_form, "METHODS", {"made_up": MadeUp})

    def draw(**changed: Any) -> AppTest:
        page = AppTest.from_function(script, default_timeout=20)
        page.session_state["given"] = DEFAULTS | changed
        page.run()
        assert not page.exception
        return page

    return draw


def made(page: AppTest) -> MadeUp:
    values = dict(page.session_state["made"])
    assert values.pop("method") == "made_up"
    return MadeUp.model_validate(values)


def test_untouched_fields_give_the_defaults(opened: Any) -> None:
    page = opened()
    assert page.session_state["made"] == DEFAULTS
    assert any("Nothing runs faster." in caption.value for caption in page.caption)


def test_values_of_a_recipe_are_shown_as_they_are(opened: Any) -> None:
    given = {
        "choice": "l2", "bits": 4, "order": "last", "count": 5, "share": 1e-7, "switch": False,
        "keep": ["conv1", "fc"], "kinds": ["linear"], "name": "y", "maybe_choice": "b", "maybe_number": 10.0,
        "maybe_text": "t", "maybe_keep": ["a"], "maybe_switch": False, "sizes": [5, 7], "either": 4,
    }  # fmt: skip
    page = opened(**given)
    assert page.session_state["made"] == DEFAULTS | given
    assert page.expander[0].proto.expanded


CHANGES: tuple[tuple[str, str, Any, Any], ...] = (
    ("selectbox", "choice", "l2", "l2"),
    ("selectbox", "bits", 4, 4),
    ("selectbox", "order", "last", Order.LAST),
    ("number_input", "count", 1, 1),
    ("number_input", "share", 0.25, 0.25),
    ("checkbox", "switch", False, False),
    ("multiselect", "kinds", ["linear", "conv"], ["linear", "conv"]),
    ("text_input", "name", "other", "other"),
    ("selectbox", "maybe_choice", "b", "b"),
    ("number_input", "maybe_number", 2.5, 2.5),
    ("text_input", "maybe_text", "some", "some"),
    ("text_input", "maybe_switch", "true", True),
    ("text_input", "sizes", "[5, 7]", (5, 7)),
    ("text_input", "either", "12", 12),
)


@pytest.mark.parametrize(("widget", "name", "entered", "expected"), CHANGES)
def test_a_changed_field_changes_its_setting(
    opened: Any, widget: str, name: str, entered: Any, expected: Any
) -> None:
    page = opened()
    getattr(page, widget)(key=f"f-{name}").set_value(entered).run()
    assert not page.exception
    assert getattr(made(page), name) == expected
    rest = {**page.session_state["made"]}
    assert {k for k in rest if rest[k] != DEFAULTS[k]} == {name}


@pytest.mark.parametrize(
    ("widget", "name", "given"),
    [
        ("selectbox", "maybe_choice", "a"),
        ("number_input", "maybe_number", 3.0),
        ("text_input", "maybe_text", "t"),
    ],
)
def test_what_may_be_nothing_can_be_emptied(opened: Any, widget: str, name: str, given: Any) -> None:
    page = opened(**{name: given})
    empty = "" if widget == "text_input" else None
    getattr(page, widget)(key=f"f-{name}").set_value(empty).run()
    assert getattr(made(page), name) is None


def test_fields_beyond_the_fourth_are_folded(opened: Any) -> None:
    page = opened()
    folded = page.expander[0]
    assert folded.label == "More settings"
    assert not folded.proto.expanded
    assert not any(box.key in ("f-choice", "f-bits", "f-order") for box in folded.selectbox)
    assert folded.checkbox[0].key == "f-switch"


class Numbers(BaseModel):
    share: float = Field(0.5, gt=0, le=0.95)
    nothing: float = Field(0.0, ge=0, le=0.5)
    small: float = Field(5e-4, ge=0, le=1)
    rate: float = Field(0.01, gt=0, le=1)
    large: float = Field(400.0, ge=0)


def test_buttons_step_as_finely_as_the_default() -> None:
    fields = Numbers.model_json_schema()["properties"]
    steps = {name: step_of(field) for name, field in fields.items()}
    assert steps == pytest.approx({"share": 0.05, "nothing": 0.05, "small": 1e-5, "rate": 1e-3, "large": 10})
