"""A model in one row of numbers, the same ones in the same places on every card."""

import streamlit as st

from app import numbers
from app.components.figures import figures
from app.components.plain import plain
from db.models import Model


def model_facts(model: Model, accuracy: float | None) -> None:
    """accuracy: of its newest baseline, on the validation split."""
    facts, spec = model.facts or {}, model.spec or {}
    how = spec.get("preprocessing")
    name = spec.get("architecture") or (model.file_name or "").rpartition(".")[2].upper()
    st.caption(f"{plain(name)} · {spec.get('classes', 0):,} classes")
    figures(
        {
            "Parameters": numbers.count(facts.get("parameters")),
            "MACs": numbers.count(facts.get("macs")),
            "Size": numbers.size(facts.get("size_bytes")),
            "Input": f"{how['channels']} × {how['height']} × {how['width']}" if how else "–",
            "Accuracy": numbers.share(accuracy),
        }
    )
