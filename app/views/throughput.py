"""How many samples per second does this file answer here, and how should it be called for that?"""

import json
from collections.abc import Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import app.session
from app import numbers
from app.charts.throughput import rate, throughput_map
from app.charts.variants import moved_words
from app.components.asked_job import working
from app.components.error_box import error_box
from app.components.linked import linked_choice, remember
from app.components.live import live
from app.components.plain import plain
from app.queueing import queue_throughput
from app.recipes import chips
from db import analyses, jobs, variants
from db.models import Analysis, Job, Run, Stage, Variant
from workers.base import Target
from workers.throughput.grid import Cell, Grid, best_under

BUDGETS = (30, 60, 120, 300, 600)
ABOUT = (
    "Every stream is a session of its own that sends its next batch when it has the answer to the last. A "
    "limit holds against p99, and against p90 where there were too few calls for a p99."
)


def main() -> None:
    live("/api/state/runs", key="live", seconds=2)
    st.title("Throughput")
    with app.session.reading() as session:
        found = variants.whole(session, st.query_params.get("variant", ""))
        if found is None:
            return _empty()
        variant, stage, run = found
        _heading(variant, stage, run)
        job = jobs.latest(session, [stage.id], "throughput").get(stage.id)
        sha256 = variants.stored(variant, stage, "file")
        known = [
            analysis
            for analysis in analyses.of_stage(session, "throughput", stage.id)
            if analysis.document["file_sha256"] == sha256
        ]
    row = st.container(horizontal=True, vertical_alignment="bottom")
    limit_ms = _limit(row) if known else None
    _measure(row, variant, stage, job, again=bool(known))
    if known:
        _shown(_chosen(known), limit_ms)
    return None


def _empty() -> None:
    st.info("Choose a point in Trade-offs; its panel leads here.")
    st.page_link("views/tradeoffs.py", label="Trade-offs", icon=":material/scatter_plot:")


def _heading(variant: Variant, stage: Stage, run: Run) -> None:
    steps = " → ".join(chips({"steps": run.recipe.get("steps", [])[: stage.index]}))
    moved = moved_words(json.dumps(variant.thresholds) if variant.file_sha256 else None)
    pair = f"{run.experiment.model.name} on {run.experiment.dataset.name}"
    with st.container(horizontal=True, vertical_alignment="center"):
        told = " · ".join(part for part in (steps, pair) if part)
        st.markdown(f"**{plain(run.name)}**{plain(moved)} · {plain(told)}")
        st.page_link(
            "views/tradeoffs.py", label="Show in trade-offs", icon=":material/scatter_plot:",
            query_params={"experiment": run.experiment_id, "variant": variant.id},
        )  # fmt: skip


def _measure(row: DeltaGenerator, variant: Variant, stage: Stage, job: Job | None, *, again: bool) -> None:
    """The budget and the button, or how the job stands."""
    own = job is not None and job.request.get("variant") == variant.id
    if working(job):
        return
    if job is not None and own and job.state == "failed" and job.error:
        error_box(job.error)
    with row:
        seconds = st.selectbox(
            "Time budget", BUDGETS, index=1, format_func=lambda seconds: f"{seconds} s", width=160,
            help="Slow models need more to reach all cells. Training pauses while a cell is measured.",
        )  # fmt: skip
        label = "Measure again" if again else "Measure"
        if st.button(label, icon=":material/speed:", type="secondary" if again else "primary"):
            queue_throughput(stage.id, variant.id, float(seconds))
            st.rerun()
    if not again:
        st.caption(
            "Threads, parallel streams and batch sizes are tried on the worker's cores, with real samples."
        )


def _chosen(known: Sequence[Analysis]) -> Analysis:
    """The newest of each machine; a choice where there are several."""
    newest: dict[str, Analysis] = {}
    for analysis in known:
        newest.setdefault(_machine(analysis), analysis)
    if len(newest) == 1:
        return next(iter(newest.values()))
    return newest[linked_choice(st.container(), "Measured on", {name: name for name in newest}, key="on")]


def _machine(analysis: Analysis) -> str:
    target = Target.model_validate(analysis.target)
    return f"{target.software} · {target.device} · host {target.host}"


def _shown(analysis: Analysis, limit_ms: float | None) -> None:
    grid = Grid.model_validate(analysis.document["grid"])
    best = best_under(grid.cells, limit_ms)
    st.markdown(f"**{sentence(grid, limit_ms)}**")
    st.altair_chart(
        throughput_map(grid, limit_ms, best),
        alt="Samples per second by batch, threads and streams; the table below holds the same numbers.",
    )
    for note in grid.notes:
        st.caption(plain(note, 600))
    st.caption(
        f"Samples per second · {_machine(analysis)} · {grid.cores} cores · budget {grid.seconds:g} s · "
        f"{numbers.age(analysis.created_at)} ago{_contended(grid)}. {ABOUT}"
    )
    st.dataframe(table(grid), hide_index=True, column_config=_COLUMNS, placeholder="–")


def _contended(grid: Grid) -> str:
    marked = sum("contended" in cell.marks for cell in grid.measured)
    return f" · {marked} of {len(grid.measured)} cells contended" if marked else ""


def _limit(place: DeltaGenerator) -> float | None:
    """Of the URL; an empty field is none."""
    key = "limit"
    if key not in st.session_state:
        try:
            value = float(st.query_params.get("limit", ""))
        except ValueError:
            value = 0.0
        st.session_state[key] = value if 0 < value < 1e6 else None
    limit: float | None = place.number_input(
        "Latency limit (ms)", min_value=0.001, max_value=1e6, value=None, format="%g", key=key, width=220,
        placeholder="None",
    )  # fmt: skip
    remember({"limit": None if limit is None else f"{limit:g}"})
    return limit


def sentence(grid: Grid, limit_ms: float | None) -> str:
    """What is best, and how much more that is than one sample at a time on one thread."""
    if not grid.measured:
        return "Nothing was measured within the budget; give it more time."
    best = best_under(grid.cells, limit_ms)
    if best is None:
        quickest = min(grid.measured, key=lambda cell: cell.tail[1])
        name, tail_ms = quickest.tail
        return (
            f"Nothing that was measured stays under {limit_ms:g} ms; the lowest {name} is "
            f"{numbers.milliseconds(tail_ms)}, with {quickest.way}."
        )
    name, tail_ms = best.tail
    under = "Most samples at any latency" if limit_ms is None else f"Best under {limit_ms:g} ms"
    return (
        f"{under}: {best.way}: {rate(best.samples_per_s)} samples/s, {name} {numbers.milliseconds(tail_ms)}"
        f"{_against_single(grid, best)}{''.join(f' ({mark})' for mark in best.marks)}."
    )


def _against_single(grid: Grid, best: Cell) -> str:
    single = next(
        (cell for cell in grid.measured if (cell.way.threads, cell.way.streams, cell.way.batch) == (1, 1, 1)),
        None,
    )
    if single is None or single == best:
        return ""
    more = best.samples_per_s / single.samples_per_s
    return f", {more:.1f}x what {single.way} gives"


def table(grid: Grid) -> pd.DataFrame:
    """Most samples first; what was not measured has no numbers."""
    rows = [
        {
            "Streams": cell.way.streams,
            "Threads": cell.way.threads,
            "Batch": cell.way.batch,
            "Samples/s": cell.samples_per_s if cell.calls else None,
            "Slowest visit": cell.low if cell.calls else None,
            "Fastest visit": cell.high if cell.calls else None,
            "p50 (ms)": cell.p50_ms if cell.calls else None,
            "p90 (ms)": cell.p90_ms if cell.calls else None,
            "p99 (ms)": cell.p99_ms,
            "Calls": cell.calls,
            "Marks": ", ".join(cell.marks) if cell.calls else "not measured",
        }
        for cell in grid.cells
    ]
    return pd.DataFrame(rows).sort_values("Samples/s", ascending=False, na_position="last")


_COLUMNS = {
    **dict.fromkeys(
        ("Samples/s", "Slowest visit", "Fastest visit"), st.column_config.NumberColumn(format="%.1f")
    ),
    **dict.fromkeys(("p50 (ms)", "p90 (ms)", "p99 (ms)"), st.column_config.NumberColumn(format="%.2f")),
}

main()
