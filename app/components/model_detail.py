"""A model's inside: its graph, its layers, its preprocessing and the runs that came from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import numbers
from app.charts.graph import graph_dot
from app.components.graph_link import graph_link
from app.components.plain import plain
from app.components.reading_settings import preprocessing_settings
from app.imports import correct
from db.models import Model, Run

UNKNOWN = "The layers of this file are not known; an ONNX file is taken as it is."
TITLES = {"name": "Name", "type": "Type", "parameters": "Parameters", "about": "Settings"}


def model_detail(model: Model, runs: Sequence[Run]) -> None:
    """runs: those of this model, the newest first."""
    facts = model.facts or {}
    graph, layers, preprocessing, lineage = st.tabs(["Graph", "Layers", "Preprocessing", "Runs"])
    with graph:
        graph_link("models", model.id)
        _graph(facts)
    with layers:
        if facts.get("layers"):
            columns = {"Parameters": st.column_config.NumberColumn(format="localized")}
            frame = pd.DataFrame(facts["layers"]).rename(columns=TITLES)
            st.dataframe(frame, hide_index=True, column_config=columns)
        else:
            st.caption(UNKNOWN)
        _sensitivity(model, runs)
    with preprocessing:
        _preprocessing(model, used=bool(runs))
    with lineage:
        _runs(runs)


def _graph(facts: Mapping[str, Any]) -> None:
    blocks = facts.get("blocks")
    if not blocks:
        st.caption(UNKNOWN)
        return
    with st.container(height=520, border=False, horizontal_alignment="center"):
        st.graphviz_chart(
            graph_dot(blocks), alt="The model as boxes; the tab Layers lists the same as a table."
        )


def _sensitivity(model: Model, runs: Sequence[Run]) -> None:
    """What each layer carries, on every dataset that the model ran on."""
    if not (model.file_name or "").endswith(".pt2"):
        return
    for experiment in {run.experiment_id: run.experiment for run in runs}.values():
        st.page_link(
            "views/sensitivity.py", label=f"Sensitivity on {plain(experiment.dataset.name)}",
            icon=":material/vital_signs:", query_params={"experiment": experiment.id},
        )  # fmt: skip


def _preprocessing(model: Model, *, used: bool) -> None:
    how = (model.spec or {})["preprocessing"]
    st.text(sentence(how))
    with st.expander("Correct it", icon=":material/edit:"):
        if used:
            st.caption("The runs of this model keep it as it is; the corrected one will stand beside it.")
        given = {"size": how["height"], "mean": how["mean"], "std": how["std"]}
        reading = preprocessing_settings(f"correct-{model.id}", (model.spec or {})["architecture"], given)
        if st.button("Check with these", key=f"correct-{model.id}", disabled=reading.missing is not None):
            st.query_params["model"] = correct(model, reading.settings, used=used)
            st.rerun()
    st.caption("SHA-256 of the upload")
    st.code(model.upload_sha256, language=None, wrap_lines=True)


def sentence(how: Mapping[str, Any]) -> str:
    """What a picture goes through, in one line."""
    colour = "Grey" if how["channels"] == 1 else "RGB"
    sides = f"{how['height']} × {how['width']} px"
    resize = f"shorter side to {how['resize']} px, centre of {sides}" if how["resize"] else f"to {sides}"
    mean, std = (", ".join(f"{value:.4g}" for value in how[name]) for name in ("mean", "std"))
    return f"{colour} · {resize} · values 0–1 · minus {mean} · divided by {std}"


def _runs(runs: Sequence[Run]) -> None:
    if not runs:
        st.caption("No run has used this model yet.")
    for run in runs:
        label = (
            f"{plain(run.name)} on {plain(run.experiment.dataset.name)}, {numbers.age(run.created_at)} ago"
        )
        st.page_link("views/runs.py", label=label, icon=":material/timeline:", query_params={"run": run.id})
