"""What Streamlit runs at every visit and click: navigation and the frame, then the chosen page."""

from pathlib import Path

import streamlit as st

from app.components.sidebar_foot import sidebar_foot
from app.session import reading
from db import people, runs, variants

PAGES = (
    ("tradeoffs", "Trade-offs", "scatter_plot"),
    ("runs", "Runs", "list_alt"),
    ("new_run", "New run", "add_circle"),
    ("models", "Models", "deployed_code"),
    ("data", "Data", "dataset"),
    ("targets", "Targets", "memory"),
)
#: Only where something stops early.
EXITS = ("exits", "Exits", "call_split")
#: Reached from what they are about.
HIDDEN = (
    ("profile", "Where the time goes", "timer"),
    ("throughput", "Throughput", "speed"),
    ("sensitivity", "Sensitivity", "vital_signs"),
)
SIDEBAR_PX = 220
START = ("start", "Start", "flag")

st.set_page_config(page_title="Paredown", page_icon="✂️", layout="wide", initial_sidebar_state=SIDEBAR_PX)
st.html(Path(__file__).with_name("look.css"))
with reading() as session:
    empty = runs.count(session) == 0
    exits = variants.any_exits(session)
    project, person = people.here(session)


def home() -> None:
    """The address without a path leads on with its query, so that every page keeps one address."""
    query = st.query_params.to_dict()
    st.switch_page("views/start.py" if empty else "views/tradeoffs.py", query_params=query)


pages = (START, *PAGES) if empty else (PAGES[0], EXITS, *PAGES[1:]) if exits else PAGES
shown = [
    st.Page(
        f"views/{name}.py", title=title, icon=f":material/{icon}:", url_path=name.replace("_", "-"),
        visibility="hidden" if (name, title, icon) in HIDDEN else "visible",
    )
    for name, title, icon in (*pages, *HIDDEN)
]  # fmt: skip
page = st.navigation([st.Page(home, default=True, visibility="hidden"), *shown])
sidebar_foot(project, person)
page.run()
