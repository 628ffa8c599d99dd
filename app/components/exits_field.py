"""Where the exits of a recipe stand: on the line of the model's blocks once it is known, else by number."""

import json
from collections.abc import Sequence

import streamlit as st

from app import numbers
from app.blocks import Asked, Blocks, job_of, known_blocks
from app.components.asked_job import working
from app.components.error_box import error_box
from app.components.exit_line import Exits, exit_line
from app.components.live import live
from app.components.plain import plain
from app.queueing import queue_blocks
from app.recipes import Plain
from db.models import Dataset, Model
from workers.catalog import METHODS
from workers.exits.placing import SHARES
from workers.recipe import CHANGING

USUAL = 2


def exits_field(
    model: Model, dataset: Dataset, runtime: str, before: Sequence[Plain], settings: Plain, key: str
) -> Exits:
    """Draw it and return what it holds now. runtime: that steps choose by time in.

    before: the steps that precede this one. settings: of this one.
    """
    exits: Exits = settings["exits"]
    if not (model.file_name or "").endswith(".pt2"):
        return _by_number(exits, key)
    live("/api/state/blocks", key=f"live-{key}")
    asked = Asked(model, dataset, settings["head"], runtime)
    blocks = known_blocks(asked)
    if blocks is None:
        exits = _by_number(exits, key)
        _ask(asked, key)
        return exits
    exits = exit_line(blocks.spots, exits, key=f"{key}-line")
    st.caption(" ".join(_about(blocks, before)))
    return exits


def _by_number(exits: Exits, key: str) -> Exits:
    """A number as a field; names as they are, with a way back."""
    if isinstance(exits, int):
        told = METHODS["early_exit"].model_fields["exits"].description
        number = st.number_input(
            "Exits", min(SHARES), max(SHARES), exits, step=1, help=told, key=f"{key}-number"
        )
        return int(number)
    place = st.empty()
    with place.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Exits after {', '.join(plain(name) for name in exits)}")
        if not st.button(f"Place {USUAL} by time", key=f"{key}-by-time"):
            return exits
    with place.container():
        return _by_number(USUAL, key)


def _ask(asked: Asked, key: str) -> None:
    job = job_of(asked)
    if working(job):
        return
    failed = job is not None and job.state == "failed"
    if job is not None and failed and job.error:
        error_box(job.error)
    with st.container(horizontal=True, vertical_alignment="center"):
        label = "Try again" if failed else "Show the blocks"
        if st.button(label, icon=":material/linear_scale:", key=f"{key}-ask"):
            queue_blocks(asked.model.id, asked.request)
            st.rerun()
        st.caption("Times the blocks of this model, so that exits can be placed on them by hand.")


def _about(blocks: Blocks, before: Sequence[Plain]) -> list[str]:
    target = numbers.target_name(json.dumps(blocks.target))
    sentences = [f"Shares of the latency: {target}."]
    if any(METHODS[step["method"]].family in CHANGING for step in before):
        sentences.append(
            "They are those of the model as uploaded. Steps before this one may change them, and the run "
            "refuses an exit after a node that they removed."
        )
    return sentences
