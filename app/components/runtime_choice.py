"""Where a run is measured: the runtimes of the workers that are online, all of them, or the fastest."""

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.components.linked import linked_choice
from db.models import Worker
from workers.base import FASTEST
from workers.catalog import RUNTIMES
from workers.places import ALL, USUAL, RuntimeFacts

#: What is no single runtime, as a person reads it.
WORDS = {FASTEST: "the fastest runtime for each stage", ALL: "every runtime"}


def runtime_choice(place: DeltaGenerator, online: Sequence[Worker]) -> str:
    """Draw the choice that the URL holds; returns what `workers.places.choose` takes."""
    there = known_runtimes(online)
    names = [USUAL, *(name for name in RUNTIMES if name != USUAL)]
    names += [name for name in there if name not in names]
    titles = {name: _title(name, there) for name in names}
    every = {name: f"{words[:1].upper()}{words[1:]} (of the worker)" for name, words in WORDS.items()}
    chosen = linked_choice(place, "Measure in", {**titles, **every}, key="runtime")
    facts = there.get(chosen)
    if facts is not None and facts.missing:
        place.caption(f"{facts.missing} On the worker's machine: `{facts.install}`")
    return chosen


def known_runtimes(online: Sequence[Worker]) -> dict[str, RuntimeFacts]:
    """What the workers say of theirs, by the name that is asked for; of several the one where it works."""
    found: dict[str, RuntimeFacts] = {}
    for worker in online:
        for told in (worker.facts or {}).get("runtimes", ()):
            facts = RuntimeFacts.model_validate(told)
            for name in facts.names:
                if name not in found or found[name].missing:
                    found[name] = facts
    return found


def _title(name: str, there: dict[str, RuntimeFacts]) -> str:
    runtime, _, device = name.partition(":")
    title = f"{RUNTIMES[runtime].title} on {device}" if device else RUNTIMES[runtime].title
    return f"{title} (missing on the worker)" if name in there and there[name].missing else title


def runtime_list(worker: Worker) -> None:
    """Of one worker: what is there, and the command that adds what is missing."""
    found = known_runtimes([worker]).values()
    for facts in found:
        if facts.missing:
            st.caption(f":orange[:material/remove_circle:] {facts.title}: {facts.missing} `{facts.install}`")
    well = [f"{facts.title} {facts.version}" for facts in found if not facts.missing]
    if well:
        st.caption(f":green[:material/check_circle:] {' · '.join(well)}")
