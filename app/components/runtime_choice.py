"""Where a run is measured: a machine, and there a runtime, every runtime, or the fastest."""

from collections.abc import Iterable, Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.components.linked import linked_choice
from db.models import Worker
from db.workers import NamedTarget
from workers.base import FASTEST
from workers.catalog import RUNTIMES
from workers.places import ALL, USUAL, RuntimeFacts

#: What is no single runtime, as a person reads it.
WORDS = {FASTEST: "the fastest runtime for each stage", ALL: "every runtime"}
HERE = "The worker that does the run"


def place_choice(
    place: DeltaGenerator, online: Sequence[Worker], targets: Sequence[NamedTarget]
) -> tuple[str, str]:
    """Draw the choices that the URL holds; returns the name of a target, empty for none, and what
    `workers.places.choose` takes.

    online: workers of any kind. The machine is asked for only where there is another one than the workers'.
    """
    left, right = place.columns(2) if targets else (place, place)
    target = ""
    if targets:
        target = linked_choice(left, "Measure on", {"": HERE, **target_names(targets)}, key="machine")
    own = [worker for worker in online if {"cpu", "gpu"} & set(worker.queues)]
    there = known_runtimes([t.worker for t in targets if t.name == target] if target else own)
    whose = target or "the worker"
    runtime = linked_choice(right, "Measure in", runtime_names(there, whose), key="runtime")
    facts = there.get(runtime)
    if facts is not None and facts.missing:
        place.caption(f"{facts.missing} On {whose}'s machine: `{facts.install}`")
    return target, runtime


def target_names(targets: Iterable[NamedTarget]) -> dict[str, str]:
    return {target.name: target.name if target.online else f"{target.name} (offline)" for target in targets}


def runtime_names(there: dict[str, RuntimeFacts], whose: str) -> dict[str, str]:
    """What can be asked for and its title, the usual runtime first. there: what the machine says it has."""
    names = [USUAL, *(name for name in RUNTIMES if name != USUAL)]
    names += [name for name in there if name not in names]
    every = {name: f"{words[:1].upper()}{words[1:]} (of {whose})" for name, words in WORDS.items()}
    return {name: _title(name, there, whose) for name in names} | every


def known_runtimes(workers: Iterable[Worker]) -> dict[str, RuntimeFacts]:
    """What the workers say of theirs, by the name that is asked for; of several the one where it works."""
    found: dict[str, RuntimeFacts] = {}
    for worker in workers:
        for told in (worker.facts or {}).get("runtimes", ()):
            facts = RuntimeFacts.model_validate(told)
            for name in facts.names:
                if name not in found or found[name].missing:
                    found[name] = facts
    return found


def _title(name: str, there: dict[str, RuntimeFacts], whose: str) -> str:
    runtime, _, device = name.partition(":")
    title = f"{RUNTIMES[runtime].title} on {device}" if device else RUNTIMES[runtime].title
    return f"{title} (missing on {whose})" if name in there and there[name].missing else title


def runtime_list(worker: Worker) -> None:
    """Of one worker: what is there, and the command that adds what is missing."""
    found = known_runtimes([worker]).values()
    for facts in found:
        if facts.missing:
            st.caption(f":orange[:material/remove_circle:] {facts.title}: {facts.missing} `{facts.install}`")
    well = [f"{facts.title} {facts.version}" for facts in found if not facts.missing]
    if well:
        st.caption(f":green[:material/check_circle:] {' · '.join(well)}")


def measured_in(runtime: str, target: str = "") -> str:
    """What was asked for, in words: "every runtime on pi5"."""
    words = WORDS.get(runtime, RUNTIMES[runtime].title if runtime in RUNTIMES else runtime)
    return f"{words} on {target}" if target else words
