"""Which data is here, and what is in it? Bring more."""

import streamlit as st

from app.components.dataset_facts import show_dataset
from app.components.import_state import import_state
from app.components.live import live
from app.components.upload_dataset import upload_dataset
from app.imports import forget
from app.session import reading
from db import datasets, jobs
from db.models import Dataset, Job


def main() -> None:
    live("/api/state/data", key="live")
    st.title("Data")
    upload_dataset()
    with reading() as session:
        found = datasets.all_of(session)
        latest = jobs.latest(session, [dataset.id for dataset in found])
    if not found:
        st.info("No data yet. Drop labelled pictures above; they are checked and split into four parts.")
    for dataset in found:
        _card(dataset, latest.get(dataset.id))


def _card(dataset: Dataset, job: Job | None) -> None:
    with st.container(border=True, key=f"dataset-{dataset.id}"):
        st.text(dataset.name)
        if dataset.facts is not None:
            show_dataset(dataset)
        elif job is not None:
            import_state(job, remove=forget)


main()
