"""A job's bar and sentence; moves with what `live.py` hears, without a rerun of the page."""

from collections.abc import Collection

import streamlit as st

from app.waiting import sentence
from db.models import Job

_HTML = '<div class="text"></div><div class="bar"><div></div></div>'
_CSS = """
.text { font: inherit; font-size: .875rem; min-height: 1.4em; color: var(--st-text-color); opacity: .8; }
.bar { height: 4px; margin-top: 4px; border-radius: 2px; background: var(--st-border-color); }
.bar div { height: 100%; width: 0; border-radius: 2px; background: var(--st-primary-color);
           transition: width 2s linear; }
"""
_JS = """
export default function ({ data, parentElement }) {
  const draw = ({ share, text }) => {
    parentElement.querySelector(".text").textContent = text;
    const bar = parentElement.querySelector(".bar");
    const own = Math.min(1, Math.max(0, (share - data.from) / (data.to - data.from)));
    bar.firstElementChild.style.width = `${100 * own}%`;
  };
  const hear = (event) => {
    const job = event.detail.jobs?.[data.job];
    if (job) draw(job);
  };
  draw(data);
  window.addEventListener("paredown:state", hear);
  return () => window.removeEventListener("paredown:state", hear);
}
"""
_progress = st.components.v2.component("paredown_progress", html=_HTML, css=_CSS, js=_JS)


def job_progress(
    job: Job, *, key: str, within: tuple[float, float] = (0.0, 1.0), online: Collection[str] = ()
) -> None:
    """The page must also call `live` on a path whose JSON tells this job.

    within: the part of the job that the bar is about, e.g. (1/3, 2/3) for the second of three stages.
    online: see `app.waiting.sentence`; only jobs of a machine elsewhere need it.
    """
    told = {"job": job.id, "share": job.share, "text": sentence(job, online)}
    _progress(key=key, data={**told, "from": within[0], "to": within[1]})
