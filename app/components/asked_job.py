"""A job that a page has asked for, in the place of what asks for it."""

import streamlit as st

from app.components.progress import job_progress
from app.queueing import cancel
from db.models import Job


def working(job: Job | None) -> bool:
    """Draw how far it is, with a way to end it; False where there is nothing to wait for."""
    if job is None or job.state not in ("queued", "running"):
        return False
    with st.container(border=True):
        job_progress(job, key=f"asked-{job.id}")
        if st.button("Cancel", icon=":material/stop:", disabled=job.cancel_requested):
            cancel(job.id)
            st.rerun()
    return True
