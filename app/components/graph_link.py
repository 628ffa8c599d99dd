"""The way to the graph of a file, which opens in a tab of its own."""

from typing import Literal

import streamlit as st

from app.api.graph import INSTALL, netron_folder


def graph_link(noun: Literal["models", "variants"], subject: str) -> None:
    """A button, or the sentence that says what is missing."""
    missing = netron_folder() is None
    st.link_button(
        "Open graph", f"/api/graph/{noun}/{subject}/", icon=":material/schema:", disabled=missing,
        help=f"Needs netron: {INSTALL}" if missing else "Every node of the file, in a tab of its own.",
    )  # fmt: skip
