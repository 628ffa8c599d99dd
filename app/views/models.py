"""Which models are here, and what are they? Bring another."""

import streamlit as st

from app.components.import_card import import_card
from app.components.live import live
from app.components.model_detail import model_detail
from app.components.model_facts import model_facts
from app.components.upload_model import read_again, upload_model
from app.session import reading
from db import jobs, models_, runs
from db.models import Model


def main() -> None:
    live("/api/state/models", key="live")
    st.title("Models")
    upload_model()
    with reading() as session:
        models = models_.all_of(session)
        latest = jobs.latest(session, [model.id for model in models])
        accuracies = models_.accuracies(session)
    if not models:
        st.info("No model yet. Drop one above; it is checked before anything else is done with it.")
    for model in models:
        with import_card(model, latest.get(model.id), settings=read_again) as known:
            if known:
                model_facts(model, accuracies.get(model.id))
                _detail(model)


def _detail(model: Model) -> None:
    opened = st.query_params.get("model") == model.id
    icon = ":material/expand_less:" if opened else ":material/expand_more:"
    label = "Close" if opened else "Details"
    if st.button(label, icon=icon, key=f"open-{model.id}", type="tertiary"):
        st.query_params.from_dict({} if opened else {"model": model.id})
        st.rerun()
    if opened:
        with reading() as session:
            used = list(runs.of_model(session, model.id))
        model_detail(model, used)


main()
