"""What Streamlit runs at every visit and click: navigation and the frame, then the chosen page."""

import streamlit as st

from app.components.sidebar_foot import sidebar_foot
from app.session import reading
from db import people, runs

PAGES = (
    ("tradeoffs", "Trade-offs", "scatter_plot"),
    ("runs", "Runs", "list_alt"),
    ("new_run", "New run", "add_circle"),
    ("models", "Models", "deployed_code"),
    ("data", "Data", "dataset"),
    ("targets", "Targets", "memory"),
)
START = ("start", "Start", "flag")

st.set_page_config(page_title="Paredown", page_icon=":material/content_cut:", layout="wide")
with reading() as session:
    empty = runs.count(session) == 0
    project, person = people.here(session)

shown = (START, *PAGES) if empty else PAGES
page = st.navigation(
    [
        st.Page(
            f"views/{name}.py", title=title, icon=f":material/{icon}:", url_path=name, default=number == 0
        )
        for number, (name, title, icon) in enumerate(shown)
    ]
)
sidebar_foot(project, person)
page.run()
