"""Keeps a page current: polls a small JSON route in the browser and reruns the page only on a change.

A poll costs the server a lookup in a cache; a rerun costs a hundred times as much. What moves all the time
(a job's share and text) is drawn by `progress.py` from the same poll, without a rerun.
"""

import streamlit as st

from app.api import state

_JS = """
const BURST = 3, BURST_MS = 15000; // short stages must not make twenty open pages rerun without end
const LOST_MS = 6000; // a rerun that has not come by then was lost
const PRESSED_MS = 1500; // from a press until the server tells that it runs

// For a rerun of the page the server stops what it runs: of a press that it had not come to nothing stays.
let pressed = 0;
for (const kind of ["pointerdown", "pointerup", "keydown"])
  addEventListener(kind, () => { pressed = Date.now(); }, { capture: true, passive: true });
const busy = () => Date.now() - pressed < PRESSED_MS
  || document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === "running";

export default function ({ data, parentElement, setTriggerValue }) {
  const poll = (parentElement.poll ??= { timer: null });
  clearTimeout(poll.timer);
  const hear = (state) => {
    const now = Date.now(), { version } = state;
    const drawn = data.version ?? (poll.first ??= version);
    poll.reruns = (poll.reruns ?? []).filter((then) => now - then < BURST_MS);
    const asked = poll.asked === version && now - poll.reruns.at(-1) < LOST_MS;
    const later = asked || poll.reruns.length >= BURST || busy(); // a later poll does it
    const redraw = version !== drawn && !later;
    // What is set at the same moment goes to the server as one request, of a fragment if one is among them:
    // the page would lose. With `redraw` nobody else asks, since the page draws everything anyway.
    window.dispatchEvent(new CustomEvent("paredown:state", { detail: { ...state, redraw } }));
    if (!redraw) return;
    poll.asked = version;
    poll.reruns.push(now);
    setTriggerValue("changed", version);
  };
  const tick = async () => {
    const timer = poll.timer;
    try {
      const response = await fetch(data.path, { cache: "no-store" });
      const state = response.ok ? await response.json() : null;
      if (timer !== poll.timer) return; // a newer poll has taken over, or the page is gone
      if (state) hear(state);
    } catch { /* the server restarts; the next poll tells */ }
    if (timer === poll.timer) poll.timer = setTimeout(tick, data.ms * (document.hidden ? 5 : 1));
  };
  poll.timer = setTimeout(tick, data.ms);
  return () => { clearTimeout(poll.timer); poll.timer = null; };
}
"""
_live = st.components.v2.component("paredown_live", js=_JS)


def live(path: str, *, key: str, seconds: float = 1.0) -> None:
    """Poll GET `path` and rerun the page (or the fragment around it) when the JSON's `version` changes.

    Call it before the page reads its data: what changes in between is then seen by the first poll.
    It reruns at once, but at most three times in fifteen seconds, and never beside a press of the user's: it
    would undo it. key: begins with `live`, see look.css.
    Paths: /api/state/models, /data, /runs, /runs/<run id>, /targets (see `app/api/state.py`).
    """
    data = {"path": path, "version": state.version(path), "ms": round(seconds * 1000)}
    _live(key=key, data=data, on_changed_change=lambda: None)


_RERUN_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.since ??= Date.now();
  const hear = (event) => {
    const value = event.detail[data.name], now = Date.now();
    if (event.detail.redraw || value === undefined || value === data.value) return;
    const wait = value > 1.5 * data.value ? data.ms : 4 * data.ms; // a long curve hardly changes
    if (now - parentElement.since < wait) return;
    parentElement.since = now;
    setTriggerValue("changed", value);
  };
  window.addEventListener("paredown:state", hear);
  return () => window.removeEventListener("paredown:state", hear);
}
"""
_rerun = st.components.v2.component("paredown_rerun", js=_RERUN_JS)


def rerun_on_change(name: str, value: int, *, key: str, seconds: float) -> None:
    """Rerun the fragment around it when the page's poll (see `live`) tells another `value`; costs no request.

    key: begins with `live`, see look.css. seconds: at least between two reruns; four times as many while
    value, a count, has not grown by half.
    """
    data = {"name": name, "value": value, "ms": round(seconds * 1000)}
    _rerun(key=key, data=data, on_changed_change=lambda: None)
