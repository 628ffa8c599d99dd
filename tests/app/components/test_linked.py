"""Choices in the URL."""

from streamlit.testing.v1 import AppTest

from app.components.linked import distinct


def page() -> None:
    import streamlit as st

    from app.components.linked import linked_choice

    st.text(linked_choice(st.container(), "Run", {"c": "Half", "b": "Other", "a": "Half"}, key="run"))


def test_options_of_one_name_are_numbered_from_the_oldest() -> None:
    assert distinct({"c": "Half", "b": "Other", "a": "Half"}) == {"a": "Half", "b": "Other", "c": "Half (2)"}


def test_a_link_to_the_second_of_a_name_shows_the_second() -> None:
    for wanted in "abc":
        test = AppTest.from_function(page)
        test.query_params["run"] = wanted
        test.run()
        assert test.text[0].value == wanted
        assert len(set(test.selectbox[0].options)) == 3
