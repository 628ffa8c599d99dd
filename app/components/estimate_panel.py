"""What to expect of a recipe: rough numbers from the amounts, and what is known before hours of work."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from app import numbers
from app.queueing import queue_for
from app.recipes import Plain, trains
from workers.recipe import Recipe

ROWS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("MACs", "macs", numbers.count),
    ("Parameters", "parameters", numbers.count),
    ("Size", "size", numbers.size),
)


def estimate_panel(
    recipe: Plain, baseline: Mapping[str, float | None], *, trainable: bool, online: set[str]
) -> None:
    """baseline: `macs`, `parameters` and `size`, as far as they are known."""
    with st.container(border=True):
        st.markdown("**What to expect**")
        rows = [
            _estimate(title, baseline.get(name), show, left_of(recipe, name)) for title, name, show in ROWS
        ]
        st.markdown("\n".join(("| | Now | After |", "|:--|--:|--:|", *rows)))
        st.caption("Estimates in grey, from the amounts alone. Latency and accuracy are measured.")
        for sentence in preflight(recipe, trainable=trainable, online=online):
            st.markdown(f":material/info: {sentence}")


def _estimate(title: str, before: float | None, show: Callable[[float | None], str], kept: float) -> str:
    """A row: what is known in black, what is guessed in grey italics."""
    if before is None:
        return f"| {title} | – | :gray[*after the baseline's run*] |"
    return f"| {title} | {show(before)} | :gray[*≈{numbers.NARROW}{show(before * kept)}*] |"


def left_of(recipe: Mapping[str, Any], name: str) -> float:
    """Share of a number that the steps leave, as far as they tell."""
    return math.prod(step.left.get(name, 1.0) for step in Recipe.model_validate(recipe).steps)


def preflight(recipe: Plain, *, trainable: bool, online: set[str]) -> list[str]:
    """What a person should know before it is queued."""
    steps, found = recipe["steps"], []
    if not steps:
        found.append("Without steps this run measures the model as it is: the baseline.")
    if steps and not trainable:
        found.append("This model is an ONNX file; its steps need a trainable model (.pt2).")
    if _ends_pruned(recipe):
        found.append("Pruning without fine-tuning after it usually costs much accuracy.")
    if left_of(recipe, "macs") < 0.15:
        found.append("So little is left that the accuracy may not come back.")
    if not online:
        found.append("No worker is online. The run waits until one is.")
    elif trains(recipe) and queue_for(recipe, online) == "cpu":
        found.append("No GPU worker is online: the CPU takes it. Training is slower there.")
    return found


def _ends_pruned(recipe: Mapping[str, Any]) -> bool:
    """True when channels go and nothing trains with what is left."""
    read = Recipe.model_validate(recipe).steps
    cut = max((index for index, step in enumerate(read) if step.family == "pruning"), default=None)
    return cut is not None and not any(step.trains for step in read[cut:])
