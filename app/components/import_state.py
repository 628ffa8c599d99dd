"""How the check of an upload stands: its step while it runs, what was wrong, and what can be done then."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.components.error_box import error_box
from app.components.progress import job_progress
from app.imports import check_again
from db.models import Job


def import_state(
    job: Job,
    *,
    remove: Callable[[str], None],
    settings: Callable[[str], dict[str, Any]] | None = None,
) -> None:
    """Draws nothing once the job is done. settings: draws the form for another try."""
    if job.state in ("queued", "running"):
        job_progress(job, key=f"check-{job.id}")
    elif job.state in ("failed", "cancelled"):
        error_box(job.error or {"where": "", "what": "The check was cancelled.", "fix": "Check it again."})
        given = settings(job.subject_id) if settings else {}
        with st.container(horizontal=True):
            wrong = [] in given.values()
            if st.button("Check again", key=f"again-{job.id}", icon=":material/refresh:", disabled=wrong):
                check_again(job, given)
                st.rerun()
            if st.button("Remove", key=f"remove-{job.id}", type="tertiary"):
                remove(job.subject_id)
                st.rerun()
