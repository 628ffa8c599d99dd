"""The chosen thresholds as a point of its own: asked for once, made by a worker, exported like any other."""

from collections.abc import Sequence

import streamlit as st

from app.components.error_box import error_box
from app.components.export_dialog import export_dialog
from app.components.progress import job_progress
from app.exits import rounded
from app.queueing import queue_thresholds
from db.models import Job, Run, Stage, Variant

NOTE = (
    "Saved, it has its accuracy counted on the kept answers and its mean latency from the path times, and a "
    "stream of real samples is timed beside them."
)


def save_point(
    thresholds: Sequence[float],
    variant: Variant,
    stage: Stage,
    run: Run,
    *,
    known: Variant | None,
    job: Job | None,
) -> None:
    """known: the point with these thresholds, if there is one. job: the newest that was to save one."""
    working = job is not None and job.state in ("queued", "running")
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(
            "Save as point", icon=":material/bookmark_add:", type="primary",
            disabled=known is not None or working, help=NOTE,
        ):  # fmt: skip
            queue_thresholds(stage.id, variant.id, thresholds)
            st.rerun()
        if known is not None:
            if st.button("Export", icon=":material/download:"):
                export_dialog(known.id)
            st.page_link(
                "views/tradeoffs.py", label="Show in trade-offs", icon=":material/scatter_plot:",
                query_params={"experiment": run.experiment_id, "variant": known.id},
            )  # fmt: skip
    if job is not None and working:
        job_progress(job, key=f"saving-{job.id}")
    elif job is not None and job.state == "failed" and job.error and _asked_for(job, thresholds):
        error_box(job.error)
    else:
        st.caption(
            "These thresholds are a point." if known else "Save these thresholds to compare and export them."
        )


def _asked_for(job: Job, thresholds: Sequence[float]) -> bool:
    return rounded(job.request.get("thresholds", ())) == rounded(thresholds)
