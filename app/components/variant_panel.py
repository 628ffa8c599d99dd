"""A point in numbers, against the baseline."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

import app.session
from app import numbers
from app.charts.variants import staircase
from app.components.export_dialog import export_dialog
from app.components.graph_link import graph_link
from app.components.measure_on import measure_on
from app.components.pareto_chart import select
from app.components.plain import plain
from app.recipes import chips
from db import variants
from db.models import Measurement, Run, Stage, Variant

Found = tuple[Variant, Stage, Run]

#: Name, title, how it is written. Accuracy comes twice: choices are made by the first.
ROWS: tuple[tuple[str, str | None, str], ...] = (
    ("accuracy", "validation", "Accuracy (validation)"),
    ("accuracy", "test", "Accuracy (test)"),
    ("latency_ratio", "validation", "Latency to baseline"),
    ("latency_mean", "validation", "Latency mean"),
    ("latency_p50", "validation", "Latency p50"),
    ("latency_p90", "validation", "Latency p90"),
    ("latency_p99", "validation", "Latency p99"),
    ("size", None, "Size"),
    ("size_compressed", None, "Size, zipped"),
    ("parameters", None, "Parameters"),
    ("macs", None, "MACs"),
    ("precision", None, "Weights"),
)


def numbers_table(
    columns: Sequence[tuple[str, Sequence[Measurement]]], target: dict[str, Any]
) -> pd.DataFrame:
    """One row per number, one column per variant; only latencies of this target."""
    table = {}
    for title, measurements in columns:
        known = {(m.name, m.split): m for m in measurements if m.target in (None, target)}
        table[plain(title)] = [_cell(known.get((name, split))) for name, split, _ in ROWS]
    frame = pd.DataFrame(table, index=pd.Index([title for *_, title in ROWS], name="Number"))
    return frame[(frame != "–").any(axis=1)]


def show_numbers(columns: Sequence[tuple[str, Sequence[Measurement]]], target: dict[str, Any]) -> None:
    st.table(numbers_table(columns, target), border="horizontal")


def _cell(measurement: Measurement | None) -> str:
    if measurement is None or measurement.value is None:
        return "–"
    value, low, high = measurement.value, measurement.low, measurement.high
    if measurement.name == "accuracy":
        spread = (
            "" if low is None or high is None else f"\u00a0±\u00a0{100 * max(value - low, high - value):.1f}"
        )
        return numbers.share(value) + spread
    if measurement.name == "precision":
        return f"{', '.join(measurement.marks)} ({value:.2g}{numbers.NARROW}bits)"
    if measurement.name == "latency_ratio":
        return "1.00" if value == 1 else f"{value:.2f} ({numbers.faster(value)})"
    if measurement.unit == "ms":
        return numbers.milliseconds(value, low, high)
    return numbers.size(value) if measurement.unit == "B" else numbers.count(value)


def variant_details(frame: pd.DataFrame, chosen: str, target: dict[str, Any]) -> None:
    """frame: of the chart, with the baseline. The chosen variant against it, and what can be done with it."""
    baseline = next(iter(frame.loc[frame["baseline"], "variant"]), None)
    labels = dict(zip(frame["variant"], frame["label"], strict=True))
    known = read_variants(name for name in (baseline, chosen) if name)
    st.markdown(f"**{plain(labels[chosen])}**")
    show_numbers([(labels[name], found[0].measurements) for name, found in known.items()], target)
    st.caption(_where(known[chosen][0].measurements, target))
    variant_recipe(known[chosen])
    compare_with(frame, labels, chosen, None)
    close_button()


def _where(measurements: Sequence[Measurement], target: dict[str, Any]) -> str:
    """Where the numbers were taken, and what a reader must know to trust them."""
    known = (m.marks for m in measurements if m.target == target and m.name == "latency_ratio")
    marks = next(known, [])
    return " · ".join([f"Measured on {numbers.target_name(json.dumps(target))}", *marks])


def read_variants(ids: Iterable[str]) -> dict[str, Found]:
    """By id, each once, in this order; those that are gone are left out."""
    with app.session.reading() as session:
        return {name: found for name in dict.fromkeys(ids) if (found := variants.whole(session, name))}


def variant_recipe(found: Found) -> None:
    """What was done to it, its run, and its file."""
    variant, stage, run = found
    with st.container(horizontal=True, gap="xsmall"):
        for chip in chips({"steps": run.recipe.get("steps", [])[: stage.index]}) or ["No steps"]:
            st.badge(chip, color="gray")
    for note in stage.notes:
        st.caption(plain(note, 600))
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Export", icon=":material/download:", key=f"export-{variant.id}"):
            export_dialog(variant.id)
        if stage.exit_logits_sha256 is not None:
            st.page_link(
                "views/exits.py", label="Explore exits", icon=":material/call_split:",
                query_params={"variant": variant.id},
            )  # fmt: skip
        measure_on(run.id, key=variant.id)
        st.page_link(
            "views/profile.py", label="Where the time goes", icon=":material/timer:",
            query_params={"variant": variant.id},
        )  # fmt: skip
        graph_link("variants", variant.id)
        st.page_link(
            "views/throughput.py", label="Throughput", icon=":material/speed:",
            query_params={"variant": variant.id},
        )  # fmt: skip
        st.page_link(
            "views/runs.py", label="Open the run", icon=":material/timeline:", query_params={"run": run.id}
        )


def close_button() -> None:
    if st.button("Close", icon=":material/close:", type="tertiary"):
        select(None)
        st.rerun()


def compare_with(frame: pd.DataFrame, labels: dict[str, str], chosen: str, second: str | None) -> None:
    """The line's points by name: comparing must not need a mouse."""
    line = staircase(frame[frame["front"]], "ratio")["variant"]
    options = [v for v in frame.loc[frame["variant"].isin([*line, second]), "variant"] if v != chosen]
    index = options.index(second) if second in options else None
    picked = st.selectbox(
        "Compare with", options, index=index, format_func=labels.__getitem__,
        placeholder="A point of the front", key=f"compare-{chosen}-{second}",
    )  # fmt: skip
    if picked != second:
        select(chosen, picked)
        st.rerun()
