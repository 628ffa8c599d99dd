"""The first visit: a model, data, a goal. Never seen again once there is a run."""

from collections.abc import Sequence

import streamlit as st

from app.components.import_card import import_card
from app.components.live import live
from app.components.upload_dataset import upload_dataset
from app.components.upload_model import read_again, upload_model
from app.imports import queue_sample
from app.queueing import queue_runs
from app.session import reading, writing
from db import datasets, jobs, models_, runs
from db.models import Dataset, Model


def main() -> None:
    live("/api/state/models", key="live")
    with reading() as session:
        models, data = models_.all_of(session), datasets.all_of(session)
    st.title("What would it cost to be twice as fast?")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text("Bring a trained model and labelled data. Every figure is measured with the exported file.")
        if not models and not data:
            st.button("Try it with the sample", icon=":material/science:", on_click=queue_sample)
    st.subheader("1 · Model")
    if not _standing(models):
        upload_model()
    st.subheader("2 · Data")
    if not _standing(data):
        upload_dataset()
    st.subheader("3 · Goal")
    ready = [next((row for row in rows if row.facts), None) for rows in (models, data)]
    if ready[0] and ready[1]:
        _goal(ready[0].id, ready[1].id)
    else:
        st.caption("Once model and data are checked: how much accuracy may be lost, and what is to be won.")


def _standing(rows: Sequence[Model] | Sequence[Dataset]) -> bool:
    """Each row with its check; False when there is none yet that is whole or on its way."""
    with reading() as session:
        latest = jobs.latest(session, [row.id for row in rows])
    for row in rows:
        settings = read_again if isinstance(row, Model) else None
        with import_card(row, latest.get(row.id), settings=settings) as known:
            if known:
                st.caption(":material/check_circle: Checked")
    return any(row.facts or latest[row.id].state in ("queued", "running") for row in rows if row.id in latest)


def _goal(model_id: str, dataset_id: str) -> None:
    left, right = st.columns(2)
    drop = left.slider("Accuracy that may be lost (points)", 0.0, 10.0, 1.0, 0.1, format="%.1f")
    ratio = right.slider("Latency at most (share of the baseline)", 0.05, 1.0, 0.5, 0.05, format="%.2f")
    if st.button("Measure the baseline", type="primary"):
        with writing() as session:
            experiment = runs.experiment_of(session, model_id, dataset_id)
            runs.set_goal(session, experiment.id, {"max_drop_points": drop, "max_latency_ratio": ratio})
        queue_runs(model_id, dataset_id, [])
        st.switch_page("views/runs.py")


main()
