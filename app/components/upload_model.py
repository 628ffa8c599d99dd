"""The drop zone for models, with the settings that a file of weights needs."""

import streamlit as st

from app.components.drop_zone import drop_zone
from app.components.reading_settings import Reading, reading_settings
from db.models import Job

ACCEPT = ".pt,.pth,.safetensors,.pt2,.onnx"
TITLE = "Drop a model here"
DETAIL = "Weights (.pt, .pth, .safetensors) with their architecture, a whole .pt2, or an .onnx."
WHY_NOT = """
A pickle of a whole module (`torch.save(model, …)`) runs any code it holds as soon as it is opened, so it is
refused, and so is TorchScript. In the program that made it, save one of these instead:
"""
CONVERT = """
torch.save(model.state_dict(), "weights.pt")  # and choose the architecture here

batch = torch.export.Dim("N")  # or the whole model, whatever its architecture
program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
torch.export.save(program, "model.pt2")
""".strip()


def upload_model() -> str | None:
    """The id of a model that was just uploaded, once."""
    how = reading_settings("new")
    uploaded = drop_zone(
        "model", title=TITLE, detail=DETAIL, accept=ACCEPT, settings=how.settings, blocked=how.missing
    )
    with st.expander("Why whole pickles are refused, and how to convert one"):
        st.markdown(WHY_NOT)
        st.code(CONVERT, language="python")
    return uploaded


def read_again(job: Job) -> Reading:
    """The settings for another check of what was refused."""
    return reading_settings(job.subject_id, job.request)
