"""A row of named numbers, each in its own place."""

from collections.abc import Mapping

import streamlit as st


def figures(shown: Mapping[str, str]) -> None:
    for column, (title, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
        with column.container(gap=None):
            st.caption(title)
            st.text(value)
