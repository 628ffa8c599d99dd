"""Which data is here, and what is in it? Bring more."""

import streamlit as st

from app.components.dataset_facts import show_dataset
from app.components.import_card import import_card
from app.components.live import live
from app.components.upload_dataset import upload_dataset
from app.session import reading
from db import datasets, jobs


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
        with import_card(dataset, latest.get(dataset.id)) as known:
            if known:
                show_dataset(dataset)


main()
