"""Which layer can lose what? Each one alone pruned or in int8, and from there into a recipe."""

import json

import pandas as pd
import streamlit as st

import app.session
from app import numbers
from app.charts.sensitivity import CELL, CHANGES, VIEWS, sensitivity_map
from app.components.asked_job import working
from app.components.error_box import error_box
from app.components.linked import linked_choice, remember
from app.components.live import live
from app.components.plain import plain
from app.queueing import queue_sensitivity
from app.recipes import Plain, whole, with_layer
from db import analyses, jobs, runs
from db.models import Analysis, Experiment, Job, Stage
from workers.base import Target
from workers.errors import ParedownError
from workers.sensitivity.table import Asked, Table

ROUND = "sensitivity_round"
NAMES = {"accuracy": "Accuracy", "kl": "KL", "time": "Time"}


def main() -> None:
    live("/api/state/runs", key="live", seconds=2)
    st.title("Sensitivity")
    with app.session.reading() as session:
        found = runs.experiments(session)
        known = {e.id: e for e in found if (e.model.file_name or "").endswith(".pt2")}
        stages = runs.baseline_stages(session, known)
    if not known:
        return _empty()
    order = sorted(known, key=lambda name: name not in stages)
    names = {name: f"{known[name].model.name} on {known[name].dataset.name}" for name in order}
    chosen = linked_choice(st.container(), "Model and data", names, key="experiment", belongs=["recipe"])
    if chosen not in stages:
        st.info("Its baseline has not been measured yet.")
        return None
    experiment, stage = known[chosen], stages[chosen]
    with app.session.reading() as session:
        tables = analyses.of_stage(session, "sensitivity", stage.id)
        job = jobs.latest(session, [stage.id], "sensitivity").get(stage.id)
    _measure(stage, job, again=bool(tables))
    if tables:
        _shown(tables[0], experiment)
    return None


def _empty() -> None:
    st.info(
        "No trainable model has been run yet. Queue a run: once its baseline is there, its layers can be "
        "tried."
    )
    st.page_link("views/new_run.py", label="New run", icon=":material/add:")


def _measure(stage: Stage, job: Job | None, *, again: bool) -> None:
    if working(job):
        return
    if job is not None and job.state == "failed" and job.error:
        error_box(job.error)
    # What was asked for last: a cancelled job goes on where it is asked for the same.
    fields, last = Asked.model_fields, Asked() if job is None else Asked.model_validate(job.request)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        samples = st.number_input(
            "Samples", min_value=16, max_value=100_000, value=last.samples, step=128, width=160,
            help=fields["samples"].description,
        )  # fmt: skip
        seconds = st.number_input(
            "Time for timing (s)", min_value=0.0, value=float(last.timing_seconds), step=60.0, format="%g",
            max_value=86_400.0, width=180, help=fields["timing_seconds"].description,
        )  # fmt: skip
        label = "Try again" if again else "Try every layer"
        if st.button(label, icon=":material/vital_signs:", type="secondary" if again else "primary"):
            queue_sensitivity(stage.id, Asked(samples=samples, timing_seconds=seconds))
            st.rerun()
    st.caption(
        "Each layer alone loses 25, 50 and 75 % of its channels, then goes to int8. Nothing is trained and "
        "BatchNorm keeps its statistics: a recipe wins much of this back; what counts is the order. With the "
        "same settings, layers that were tried before come from the cache, also after a cancel."
    )


def _shown(analysis: Analysis, experiment: Experiment) -> None:
    table = Table.model_validate(analysis.document)
    if not table.rows:
        return
    st.markdown(f"**{sentence(table)}**")
    left, right = st.columns([3, 2], gap="medium")
    with left:
        view = _view()
        picked = _map(table, view)
    with right:
        picked = _by_name(table) or picked
        for note in table.notes:
            st.caption(plain(note, 600))
        st.caption(_about(analysis, table))
    form = st.column_config.NumberColumn(format={"accuracy": "%.1f", "kl": "%.4f", "time": "%.2f"}[view])
    st.dataframe(
        numbers_of(table, view), hide_index=True, column_config=dict.fromkeys(CHANGES, form), placeholder="–"
    )
    if picked is not None:
        _into_recipe(table, experiment, *picked)


def _view() -> str:
    wanted = st.query_params.get("by", "accuracy")
    if "by" not in st.session_state:
        st.session_state["by"] = wanted if wanted in VIEWS else "accuracy"
    picked = st.segmented_control("Colour by", list(VIEWS), format_func=NAMES.__getitem__, key="by")
    view = str(picked or "accuracy")
    remember({"by": None if view == "accuracy" else view})
    return view


def _map(table: Table, view: str) -> tuple[str, str] | None:
    """The (layer, change) that was clicked; a click is taken once."""
    key = f"map-{st.session_state.get(ROUND, 0)}-{view}-{len(table.rows)}"
    event = st.altair_chart(
        sensitivity_map(table, view), key=key, on_select="rerun", selection_mode=[CELL],
        alt=f"{VIEWS[view].title} by layer and change; the table below holds the same numbers.",
    )  # fmt: skip
    cells = event.selection.get(CELL) or []
    return (str(cells[0]["layer"]), str(cells[0]["change"])) if cells else None


def _by_name(table: Table) -> tuple[str, str] | None:
    """The same without a mouse."""
    st.caption(
        "A click on a cell, or this, puts it into a recipe: a share as that layer's amount, int8 as a layer "
        "that stays in float."
    )
    layer = st.selectbox("Layer", [row.layer for row in table.rows if row.cells])
    row = table.row(layer)
    changes = [cell.change for cell in row.cells if not cell.why] if row else []
    change = st.selectbox("Change", changes, key=f"change-{layer}")
    if st.button("Put into a recipe", icon=":material/add:", disabled=change is None) and change:
        return layer, change
    return None


def _into_recipe(table: Table, experiment: Experiment, layer: str, change: str) -> None:
    """Open New run with it: that layer's amount, or, for int8, the layer among those that stay in float."""
    row = table.row(layer)
    cell = None if row is None else row.cell(change)
    if cell is None or cell.why:
        return
    recipe = with_layer(_recipe(layer, change), layer, cell.share)
    if recipe is None:
        st.warning("The recipe that this page was opened with has no place for such a step.")
        return
    st.session_state[ROUND] = st.session_state.get(ROUND, 0) + 1
    params = {"model": experiment.model_id, "dataset": experiment.dataset_id, "recipe": json.dumps(recipe)}
    where = {name: given for name in ("runtime", "machine") if (given := st.query_params.get(name))}
    st.switch_page("views/new_run.py", query_params=params | where)


def _recipe(layer: str, change: str) -> Plain:
    """That of the address, which New run gave along; else an empty one."""
    try:
        return whole(json.loads(st.query_params["recipe"]))
    except (KeyError, ValueError, TypeError, ParedownError):
        name = f"{layer} in float" if change == CHANGES[-1] else f"{layer} {change}"
        return {"name": name[:100], "steps": []}


def sentence(table: Table) -> str:
    """The layer that can lose half at the least cost, and the one that cannot."""
    halves = [
        (cell.accuracy - table.accuracy, row.layer)
        for row in table.rows
        for cell in row.cells
        if cell.change == CHANGES[1] and not cell.why
    ]
    if not halves:
        return f"Accuracy of the whole model: {numbers.share(table.accuracy)}."
    (worst, costly), (best, free) = min(halves), max(halves)
    if best == worst:
        which = plain(free) if len(halves) == 1 else "every layer"
        return f"Without half of its channels {which} changes accuracy by {numbers.points(best)}."
    if worst >= 0:
        return "To lose half of its channels costs no layer any accuracy."
    return (
        f"To lose half of its channels costs {plain(free)} least ({numbers.points(best)}) and "
        f"{plain(costly)} most ({numbers.points(worst)})."
    )


def _about(analysis: Analysis, table: Table) -> str:
    target = Target.model_validate(analysis.target)
    rows = len(table.rows)
    part = "" if table.whole else f" · {rows} layer{'s' * (rows != 1)} so far"
    return (
        f"{table.samples:,} validation samples; one of them is {100 / table.samples:.2f} points. Whole model "
        f"{numbers.share(table.accuracy)} · times on {target.software}, host {target.host}{part}. A layer "
        "alone in int8 also pays for the way to integers and back. Layers that must stay as wide are pruned "
        "together, in the row of the first."
    )


def numbers_of(table: Table, view: str) -> pd.DataFrame:
    """One row per layer with the number that is shown."""
    shown = VIEWS[view]
    rows = []
    for row in table.rows:
        values = {change: row.cell(change) for change in CHANGES}
        rows.append(
            {"Layer": row.layer, "Channels": row.width}
            | {
                change: None if cell is None or cell.why else shown.value(table, cell)
                for change, cell in values.items()
            }
            | {"Goes with": "" if row.root == row.layer else row.root or "not pruned"}
        )
    return pd.DataFrame(rows).round(4)


main()
