"""The last lines of what a job's process wrote, folded; a traceback stands here and nowhere else."""

import streamlit as st

import app.session
from app.api.logs import tail
from db.models import Job

_CSS = """
pre { font: .8rem/1.5 var(--st-code-font, monospace); color: var(--st-text-color); margin: 0; padding: .75rem;
      background: var(--st-secondary-background-color); border-radius: var(--st-base-radius);
      height: 296px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
"""
# Asks only while the expander is open: twenty closed logs cost the server nothing.
_JS = """
const MS = 2000;

export default function ({ data, parentElement }) {
  const box = parentElement.querySelector("pre");
  const read = async () => {
    if (document.hidden || !box.checkVisibility()) return;
    try {
      const response = await fetch(data.path, { cache: "no-store" });
      if (!response.ok) return;
      const text = (await response.text()) || "Nothing yet.";
      if (text === box.textContent) return;
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 4;
      box.textContent = text;
      if (atEnd) box.scrollTop = box.scrollHeight;
    } catch { /* the server restarts; the next one tells */ }
  };
  const timer = setInterval(read, MS);
  const seen = new IntersectionObserver(read);
  seen.observe(box);
  return () => { clearInterval(timer); seen.disconnect(); };
}
"""
_follow = st.components.v2.component("paredown_log", html="<pre></pre>", css=_CSS, js=_JS)


def job_log(job: Job) -> None:
    """Nothing where no log is: the worker may keep it on another machine. Follows a job that runs."""
    path = app.session.settings().job_log(job.id)
    if not path.exists() and job.state != "running":
        return
    label = "Log and traceback" if job.state == "failed" else "Log"
    with st.expander(label, icon=":material/terminal:", key=f"log-{job.id}"):
        if job.state == "running":
            _follow(key=f"following-{job.id}", data={"path": f"/api/logs/{job.id}"})
        else:
            st.code(tail(path) or "Nothing yet.", language=None, wrap_lines=True, height=320)
