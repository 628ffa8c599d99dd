"""Which other uploaded model teaches in a distillation."""

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from app.components.linked import distinct
from app.recipes import Plain
from db.models import Model
from workers.catalog import METHODS


def teacher_field(models: Sequence[Model], before: Sequence[Plain], settings: Plain, key: str) -> str:  # noqa: ARG001
    """Draw it where another model is to teach, and return what a recipe calls that model: its name, or the
    SHA-256 of its upload where several bear that name.

    models: newest first. before: the steps that precede this one. settings: of this one.
    """
    now: str = settings["teacher_model"]
    if settings["teacher"] != "other":
        return now
    able = [model for model in models if (model.file_name or "").endswith(".pt2") and model.upload_sha256]
    often = Counter(model.name for model in able)
    called = {
        model.name if often[model.name] == 1 else str(model.upload_sha256): model.name for model in able
    }
    if not called:
        st.caption("No other model is there that could teach: upload one as .pt2, or as weights.")
        return now
    choices, names = list(called), distinct(called)
    picked = st.selectbox(
        "Teacher model", choices, choices.index(now) if now in choices else None,
        format_func=names.__getitem__, key=key, placeholder="Choose a model",
        help=METHODS["distillation"].model_fields["teacher_model"].description,
    )  # fmt: skip
    return picked or now
