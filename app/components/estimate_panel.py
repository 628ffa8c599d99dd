"""What to expect of a recipe: rough numbers from the amounts, and what is known before hours of work."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import numbers
from app.queueing import queue_for
from app.recipes import Plain


def estimate_panel(
    recipe: Plain, baseline: Mapping[str, float | None], *, trainable: bool, online: set[str]
) -> None:
    """baseline: `macs`, `parameters` and `size`, as far as they are known."""
    with st.container(border=True):
        st.markdown("**What to expect**")
        kept = kept_share(recipe)
        for title, name, show in (
            ("MACs", "macs", numbers.count), ("Parameters", "parameters", numbers.count),
            ("Size", "size", numbers.size),
        ):  # fmt: skip
            before = baseline.get(name)
            told = (
                "known after the baseline's run"
                if before is None
                else f"{show(before)} → {show(before * kept)}"
            )
            st.markdown(f"{title} &nbsp; :gray[*{told}*]")
        if any(before is not None for before in baseline.values()):
            st.caption(
                "*Estimates from the amounts alone. Latency and accuracy are measured, not estimated.*"
            )
        for sentence in preflight(recipe, trainable=trainable, online=online):
            st.markdown(f":material/info: {sentence}")


def kept_share(recipe: Mapping[str, Any]) -> float:
    """Share of the multiply-accumulates that every step with an amount leaves."""
    kept = 1.0
    for step in recipe["steps"]:
        kept *= 1 - step.get("amount", 0.0)
    return kept


def preflight(recipe: Plain, *, trainable: bool, online: set[str]) -> list[str]:
    """What a person should know before it is queued."""
    steps, found = recipe["steps"], []
    if not steps:
        found.append("Without steps this run measures the model as it is: the baseline.")
    if steps and not trainable:
        found.append("This model is an ONNX file; its steps need a trainable model (.pt2).")
    if has_pruning(recipe) and "fine_tuning" not in [step["method"] for step in steps]:
        found.append("Pruning without fine-tuning after it usually costs much accuracy.")
    if kept_share(recipe) < 0.15:
        found.append("So little is left that the accuracy may not come back.")
    if not online:
        found.append("No worker is online. The run waits until one is.")
    elif any("epochs" in step for step in steps) and queue_for(recipe, online) == "cpu":
        found.append("No GPU worker is online: the CPU takes it. Training is slower there.")
    return found


def has_pruning(recipe: Mapping[str, Any]) -> bool:
    return any(step["method"] == "structured_pruning" for step in recipe["steps"])
