"""A model as a line of blocks, as long as they take, with the exits on it; they are put there by hand."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app.blocks import merged, proposals
from workers.exits.placing import MIN_GAP, Spot

Exits = int | list[str]
_HTML = """
<section>
  <div class="top">
    <span class="title">Exits</span>
    <div class="counts" role="group" aria-label="Number of exits"></div>
  </div>
  <div class="line">
    <div class="blocks"></div>
    <div class="spots" role="group" aria-label="Ends of blocks"></div>
  </div>
  <div class="told"><span class="hint"></span><span class="refused" role="status"></span></div>
  <ol class="exits"></ol>
</section>
"""
_FOLDER = Path(__file__).parent
_line = st.components.v2.component(
    "paredown_exit_line",
    html=_HTML,
    css=_FOLDER.joinpath("exit_line.css").read_text(),
    js=_FOLDER.joinpath("exit_line.js").read_text(),
)


def exit_line(spots: Sequence[Spot], exits: Exits, *, key: str) -> Exits:
    """What the setting `exits` is now: names of nodes, or a number that is spread over the latency.

    spots: where an exit may stand, first to last. exits: what it is when the line is first drawn.
    """
    now: Exits = st.session_state.get(key, {}).get("exits", exits)
    proposed = proposals(spots)
    named = now if isinstance(now, list) else proposed[now]
    shown = merged(spots, {*named, *(name for names in proposed.values() for name in names)})
    data = {
        "key": key,
        "exits": exits,
        "spots": [spot.model_dump() for spot in shown],
        "proposed": {str(number): names for number, names in proposed.items()},
        "gap": MIN_GAP,
    }
    result = _line(key=key, data=data, default={"exits": exits}, on_exits_change=lambda: None)
    found: Exits = result["exits"]
    return found
