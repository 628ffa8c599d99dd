"""The way to the graph of a file, which opens in a tab of its own."""

from typing import Literal

import streamlit as st

from app.api.graph import INSTALL, netron_folder


def graph_link(noun: Literal["models", "variants"], subject: str) -> None:
    """A button, or the sentence that says what is missing."""
    if netron_folder() is None:
        st.caption(f"To see the graph of the file, install netron's page: `{INSTALL}`")
        return
    st.link_button(
        "Open graph", f"/api/graph/{noun}/{subject}/", icon=":material/schema:",
        help="Every node of the file, in a tab of its own.", type="tertiary",
    )  # fmt: skip
