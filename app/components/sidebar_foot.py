"""The foot of the sidebar: project, person, help."""

import streamlit as st

HELP = """
**How it goes.** Bring a model and labelled data, queue a run, choose a point on Trade-offs, export its file.

**Model**: weights and architecture, never changed. **Dataset**: labelled samples in four splits; choices are
made on *validation*, *test* is one figure in the details. **Recipe**: steps in order. **Run**: one recipe
applied to one model and dataset. **Point**: a finished stage of a run, as it would be deployed. **Baseline**:
the model as uploaded.

Every latency is measured with the exported file, side by side with the baseline. In a terminal,
`paredown doctor` says what is missing on this machine.
"""


#: Streamlit lets a page put things below its navigation, not at the bottom edge.
AT_THE_BOTTOM = """
<style>
[data-testid="stSidebarContent"] { display: flex; flex-direction: column; }
[data-testid="stSidebarUserContent"] { margin-top: auto; padding-bottom: 1rem; }
</style>
"""


def sidebar_foot(project: str, person: str) -> None:
    st.html(AT_THE_BOTTOM)
    with st.sidebar, st.container(gap="xsmall"):
        st.caption(f"{project} · {person}")
        with st.popover("Help", icon=":material/help:", type="tertiary"):
            st.markdown(HELP)
