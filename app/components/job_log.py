"""The last lines of what a job's process wrote, folded; a traceback stands here and nowhere else."""

from collections import deque
from pathlib import Path

import streamlit as st

import app.session
from db.models import Job

LINES = 60
#: How often the log of a running job is read again.
SECONDS = 2.0


def job_log(job: Job) -> None:
    """Nothing where no log is: the worker may keep it on another machine. Follows a job that runs."""
    path = app.session.settings().job_log(job.id)
    if not path.exists() and job.state != "running":
        return
    label = "Log and traceback" if job.state == "failed" else "Log"
    with st.expander(label, icon=":material/terminal:", key=f"log-{job.id}"):
        following = st.fragment(_lines, run_every=SECONDS) if job.state == "running" else _lines
        following(path)


def _lines(path: Path) -> None:
    st.code(tail(path) or "Nothing yet.", language=None, wrap_lines=True, height=320)


def tail(path: Path, lines: int = LINES) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, lines)).strip()
    except OSError:
        return ""
