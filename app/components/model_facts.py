"""A model in numbers: the line on its card, and its detail."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import numbers
from app.components.figures import figures
from app.components.plain import plain
from db.models import Model, Run


def headline(model: Model) -> str:
    """What it is, in one line of plain text."""
    if model.spec is None:
        return "Not checked yet"
    name = model.spec.get("architecture") or (model.file_name or "").rpartition(".")[2].upper()
    return f"{name} · {model.spec['classes']:,} classes"


def show_metrics(model: Model) -> None:
    """The same four numbers, in the same places, on every card."""
    facts, spec = model.facts or {}, model.spec or {}
    figures(
        {
            "Parameters": numbers.count(facts.get("parameters")),
            "MACs": numbers.count(facts.get("macs")),
            "Size": numbers.size(facts.get("size_bytes")),
            "Input": _input(spec.get("preprocessing")),
        }
    )


def show_detail(model: Model, runs: list[Run]) -> None:
    facts = model.facts or {}
    layers, preprocessing, lineage = st.tabs(["Layers", "Preprocessing", "Runs"])
    with layers:
        if facts.get("layers"):
            layers_table(facts["layers"])
        else:
            st.caption("The layers of this file are not known; an ONNX file is taken as it is.")
    with preprocessing:
        show_preprocessing((model.spec or {}).get("preprocessing"), model.upload_sha256)
    with lineage:
        if not runs:
            st.caption("No run has used this model yet.")
        for run in runs:
            st.page_link("views/runs.py", label=plain(run.name), query_params={"run": run.id})


def layers_table(rows: list[dict[str, Any]]) -> None:
    titles = {"name": "Name", "type": "Type", "parameters": "Parameters", "about": "Settings"}
    columns = {"Parameters": st.column_config.NumberColumn(format="localized")}
    st.dataframe(pd.DataFrame(rows).rename(columns=titles), hide_index=True, column_config=columns)


def show_preprocessing(how: Mapping[str, Any] | None, sha256: str) -> None:
    if how:
        resize = f"shorter side to {how['resize']} px, then the centre" if how.get("resize") else "stretched"
        st.text(
            f"{'Grey' if how['channels'] == 1 else 'RGB'}, {resize} to {how['height']} × {how['width']} px, "
            f"divided by 255, mean {_list(how['mean'])}, std {_list(how['std'])}"
        )
    st.text("SHA-256 of the upload")
    st.code(sha256, language=None)


def _input(how: Mapping[str, Any] | None) -> str:
    return f"{how['channels']} × {how['height']} × {how['width']}" if how else "–"


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
