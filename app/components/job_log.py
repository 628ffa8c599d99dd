"""The last lines of what a job's process wrote, folded; a traceback stands here and nowhere else."""

from collections import deque
from pathlib import Path

import streamlit as st

import app.session
from db.models import Job

LINES = 60


def job_log(job: Job) -> None:
    """Nothing where no log is: the worker may keep it on another machine."""
    lines = tail(app.session.settings().logs / f"job-{job.id}.log")
    if lines:
        with st.expander("Log and traceback" if job.state == "failed" else "Log", icon=":material/terminal:"):
            st.code(lines, language=None, wrap_lines=True, height=320)


def tail(path: Path, lines: int = LINES) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, lines)).strip()
    except OSError:
        return ""
