"""A model or dataset that came in: its name, how its check stands, and what to do when it was refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from app.components.error_box import error_box
from app.components.progress import job_progress
from app.components.reading_settings import Reading
from app.imports import check_again, dismiss, forget
from db.models import Dataset, Job, Model

CANCELLED = {"where": "", "what": "The check was cancelled.", "fix": "Check it again."}


@contextmanager
def import_card(
    row: Model | Dataset, job: Job | None, *, settings: Callable[[Job], Reading] | None = None
) -> Iterator[bool]:
    """A card to draw into; gives whether the facts of `row` are known.

    job: the newest one. settings: draws the form for another try.
    """
    with st.container(border=True, key=f"card-{row.id}"):
        st.text(row.name)
        if job is not None and job.state in ("queued", "running"):
            job_progress(job, key=f"check-{job.id}")
        elif job is not None and job.state in ("failed", "cancelled"):
            _refused(job, settings, known=row.facts is not None)
        yield row.facts is not None


def _refused(job: Job, settings: Callable[[Job], Reading] | None, *, known: bool) -> None:
    error_box(job.error or CANCELLED)
    if known:
        st.caption("Everything is as it was before this correction.")
        if st.button("Dismiss", key=f"dismiss-{job.id}"):
            dismiss(job)
            st.rerun()
        return
    how = settings(job) if settings else Reading({})
    with st.container(horizontal=True):
        again = st.button(
            "Check again", key=f"again-{job.id}", icon=":material/refresh:", disabled=how.missing is not None
        )
        if again:
            check_again(job, how.settings)
            st.rerun()
        if st.button("Remove", key=f"remove-{job.id}", type="tertiary"):
            forget(job.subject_id)
            st.rerun()
