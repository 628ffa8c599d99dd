"""From a point to a file that runs elsewhere: what it is, how it was checked, how to run it, the download."""

import streamlit as st

from app import numbers
from app.api.downloads import file_name
from app.components.figures import figures
from app.session import reading
from db import variants
from db.models import Model

INSIDE = (
    "One standard ONNX file with weights, class names and preprocessing. Input `input`: float32 (N, C, H, W) "
    "after preprocessing; output `logits`: (N, classes). Nothing in it tells of the machine that made it."
)
RUN_IT = """
import json, numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}")
about = session.get_modelmeta().custom_metadata_map
how, classes = json.loads(about["preprocessing"]), json.loads(about["classes"])
picture = Image.open("picture.png").convert("L" if how["channels"] == 1 else "RGB")
{resize}
pixels = np.atleast_3d(np.asarray(picture, np.float32) / 255)
inputs = ((pixels - how["mean"]) / how["std"]).transpose(2, 0, 1)[None].astype(np.float32)
print(classes[session.run(None, {{"input": inputs}})[0].argmax()])
""".strip()
STRETCH = 'picture = picture.resize((how["width"], how["height"]), Image.Resampling.BILINEAR)'
CROP = """
sides = [how["resize"] * side // min(picture.size) for side in picture.size]
left, top = [round((side - how[name]) / 2) for side, name in zip(sides, ("width", "height"))]
picture = picture.resize(sides, Image.Resampling.BILINEAR)
picture = picture.crop((left, top, left + how["width"], top + how["height"]))
""".strip()


@st.dialog("Export", width="medium")
def export_dialog(variant_id: str) -> None:
    """Call it once, when it is asked for; the link of a download can be sent to a colleague."""
    with reading() as session:
        found = variants.whole(session, variant_id)
        if found is None:
            st.text("This point is no longer there.")
            return
        variant, stage, run = found
        model = run.experiment.model
    preprocessing = (model.spec or {}).get("preprocessing", {})
    size = next((m.value for m in variant.measurements if m.name == "size"), None)
    name = file_name(run.name, stage.index)
    figures({"File": name, "Size": numbers.size(size), "Format": "ONNX"})
    st.caption("What is inside")
    st.markdown(INSIDE)
    st.caption("Same answers as the network it was made from")
    st.text(parity_sentence(model))
    st.caption("SHA-256")
    st.code(stage.file_sha256, language=None)
    st.caption("To run it: pip install onnxruntime numpy pillow")
    st.code(lines_to_run(name, resized=bool(preprocessing.get("resize"))), language="python")
    st.link_button(
        "Download", f"/api/downloads/variants/{variant_id}", type="primary", icon=":material/download:"
    )


def parity_sentence(model: Model) -> str:
    """A file is only kept once its gate was passed, so there is nothing else to tell."""
    if model.file_name == "model.onnx":
        return "Nothing to compare: the uploaded ONNX graph is handed out as it came."
    return (
        "Passed on samples of the dataset: every logit within 0.1 % of the largest one, and the same class "
        "for every sample."
    )


def lines_to_run(file: str, *, resized: bool) -> str:
    """A program that answers for one picture, with the same preprocessing as the workers."""
    return RUN_IT.format(file=file, resize=CROP if resized else STRETCH)
