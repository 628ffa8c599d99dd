"""Which models are here, and what are they? Bring another."""

import streamlit as st

from app.components.import_state import import_state
from app.components.live import live
from app.components.model_facts import headline, show_detail, show_metrics
from app.components.upload_model import reading_settings, upload_model
from app.imports import forget
from app.session import reading
from db import jobs, models_, runs
from db.models import Job, Model


def main() -> None:
    live("/api/state/models", key="live")
    st.title("Models")
    upload_model()
    with reading() as session:
        models = models_.all_of(session)
        latest = jobs.latest(session, [model.id for model in models])
    if not models:
        st.info("No model yet. Drop one above; it is checked before anything else is done with it.")
    for model in models:
        _card(model, latest.get(model.id))


def _card(model: Model, job: Job | None) -> None:
    with st.container(border=True, key=f"model-{model.id}"):
        name, button = st.columns([5, 1], vertical_alignment="center")
        name.text(model.name)
        if model.spec is None and job is not None:
            import_state(job, remove=forget, settings=reading_settings)
            return
        with button.container(horizontal_alignment="right"):
            opened = st.query_params.get("model") == model.id
            if st.button("Close" if opened else "Details", key=f"open-{model.id}", type="tertiary"):
                st.query_params.from_dict({} if opened else {"model": model.id})
                st.rerun()
        st.caption(headline(model))
        show_metrics(model)
        if opened:
            with reading() as session:
                used = list(runs.of_model(session, model.id))
            show_detail(model, used)


main()
