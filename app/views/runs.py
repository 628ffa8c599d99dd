"""What is going on, and what came of it? All runs, or with ?run=ID a single one."""

import pandas as pd
import streamlit as st

import app.session
from app import numbers
from app.components.live import live
from app.components.run_details import run_details
from app.recipes import chips
from db import jobs, people, runs, variants
from db.models import Job, Run

SHOWN = 200
COLUMNS = {
    "name": st.column_config.TextColumn("Run", width=112),
    "pair": st.column_config.TextColumn("Of", width=150, help="Model and dataset."),
    "state": st.column_config.TextColumn("State"),
    "recipe": st.column_config.ListColumn("Recipe", width=285),
    "progress": st.column_config.ProgressColumn(
        "Progress", format="%d %%", min_value=0, max_value=100, width=90
    ),
    "accuracy": st.column_config.NumberColumn("Acc. %", format="%.2f", help="On the validation split."),
    "ratio": st.column_config.NumberColumn("Latency", format="%.3f", help="Relative to the baseline."),
    "age": st.column_config.TextColumn("Age"),
    "who": st.column_config.TextColumn("Who"),
}


def main() -> None:
    run_id = st.query_params.get("run")
    if run_id:
        live(f"/api/state/runs/{run_id}", key="live-run", seconds=2)
        return run_details(run_id)
    live("/api/state/runs", key="live-runs")
    st.title("Runs")
    with app.session.reading() as session:
        found = runs.recent(session, SHOWN)
        ids = [run.id for run in found]
        latest, measured = jobs.latest(session, ids), variants.last_numbers(session, ids)
        total = runs.count(session)
        _, person = people.here(session)
        pairs = {e.id: f"{e.model.name} on {e.dataset.name}" for e in runs.experiments(session)}
    if not found:
        st.info("No run yet. A run applies a recipe to a model and measures what comes out.")
        st.page_link("views/new_run.py", label="New run", icon=":material/add:")
        return None
    rows = [_row(run, latest.get(run.id), measured.get(run.id, {}), person) for run in found]
    if len(pairs) > 1:  # else it is the same all the way down
        rows = [
            {"name": row.pop("name"), "pair": pairs[run.experiment_id], **row}
            for row, run in zip(rows, found, strict=True)
        ]
    st.dataframe(
        pd.DataFrame(rows), column_config=COLUMNS, hide_index=True, key="runs-table", placeholder="–",
        on_select=lambda: _open(ids), selection_mode=["single-row", "single-cell"],
        height="content" if len(rows) < 15 else 560,
    )  # fmt: skip
    st.caption(
        f"Click a run to open it.{f' The newest {SHOWN} of {total} are shown.' if total > SHOWN else ''}"
    )
    return None


def _open(ids: list[str]) -> None:
    picked = st.session_state["runs-table"]["selection"]
    rows = [*picked["rows"], *(row for row, _ in picked["cells"])]
    if rows:
        st.query_params["run"] = ids[rows[0]]


def _row(run: Run, job: Job | None, measured: dict[str, float | None], person: str) -> dict[str, object]:
    if job is None or job.state != "done":
        measured = {}  # of a stage on the way, which is not what the run comes to
    accuracy = measured.get("accuracy")
    return {
        "name": run.name,
        "state": "–" if job is None else job.state,
        "recipe": chips(run.recipe) or ["No steps"],
        "progress": 0.0 if job is None else 100 * job.share,
        "accuracy": None if accuracy is None else 100 * accuracy,
        "ratio": measured.get("latency_ratio"),
        "age": numbers.age(run.created_at),
        "who": person,
    }


main()
