"""From a point to a file that runs elsewhere: what it is, how it was checked, how to run it, the download."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import numbers
from app.api.downloads import variant_file
from app.components.figures import figures
from app.session import reading
from db import variants
from db.models import Model

INSIDE = (
    "Weights, class names and preprocessing. Input `input`: float32 (N, {channels}, {height}, {width}), "
    "preprocessed; output `logits`: (N, {classes}); N is any number. Nothing in it tells where it was made."
)
EXITS_INSIDE = (
    "It stops early by itself: a second output, `exit`, (N,), says where, from 1. A batch leaves when all of "
    "its rows are sure; one at a time, as below, every sample leaves where it is sure. `exits.json` holds "
    "cuts, temperatures, thresholds, the time of every way out and the promise, if one was asked for."
)
CHANGE_IT = """
import numpy as np, onnx

model = onnx.load("{file}")
for tensor in model.graph.initializer:
    if tensor.name == "exit_1_threshold":
        value = np.full(tensor.dims, 0.9, np.float32)  # leave only above this score
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
onnx.save(model, "{file}")
""".strip()
RUN_IT = """
import json, numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{file}")
about = session.get_modelmeta().custom_metadata_map
how, classes = json.loads(about["preprocessing"]), json.loads(about["classes"])
pictures = np.load("pictures.npy")  # uint8 (N, {height}, {width}, {channels})
mean, std = np.float32(how["mean"]), np.float32(how["std"])
inputs = (pictures / np.float32(255) - mean) / std
{answer}
print(*(classes[best] for best in logits.argmax(axis=1)), sep="\\n")
""".strip()
TOGETHER = 'logits = session.run(None, {"input": inputs.transpose(0, 3, 1, 2)})[0]'
ONE_BY_ONE = (
    'logits = np.concatenate([session.run(["logits"], {"input": one[None]})[0] '
    "for one in inputs.transpose(0, 3, 1, 2)])"
)
TO_AN_ARRAY = """
import numpy as np
from PIL import Image

picture = Image.open("picture.png").convert("{mode}")
{resize}
np.save("pictures.npy", np.asarray(picture).reshape(1, {height}, {width}, {channels}))
""".strip()
STRETCH = "picture = picture.resize(({width}, {height}), Image.Resampling.BILINEAR)"
CROP = """
sides = [{resize} * side // min(picture.size) for side in picture.size]
left, top = round((sides[0] - {width}) / 2), round((sides[1] - {height}) / 2)
picture = picture.resize(sides, Image.Resampling.BILINEAR)
picture = picture.crop((left, top, left + {width}, top + {height}))
""".strip()


#: A graph is compared with its file; after quantization there is no graph any more.
ROUNDED = (
    "Its numbers are rounded, so its logits differ from the network's by design; every figure of this point "
    "was taken with this very file. An int8 file is handed out only if the processor's integers give the "
    "answers of exact arithmetic on 512 samples, ties left out."
)


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
    spec = model.spec or {}
    how = spec.get("preprocessing") or {}
    size = next((m.value for m in variant.measurements if m.name == "size"), None)
    name, exits = variant_file(variant, stage, run), variants.stored(variant, stage, "exits") is not None
    address = f"/api/downloads/variants/{variant_id}"
    st.link_button("Download", address, type="primary", icon=":material/download:", width="stretch")
    if exits:
        st.link_button("exits.json", f"{address}/exits.json", icon=":material/data_object:", width="stretch")
    figures({"File": name, "Format": "ONNX", "Size": numbers.size(size)})
    st.markdown("**What is inside**")
    if how:
        st.markdown(INSIDE.format(**how, classes=spec["classes"]))
    if exits:
        st.markdown(EXITS_INSIDE)
    st.markdown("**Compared with the network it was made from**")
    st.text(parity_sentence(variant.parity or stage.parity, model))
    st.markdown("**SHA-256**")
    st.code(variants.stored(variant, stage, "file"), language=None, wrap_lines=True)
    if how:
        _how_to_run(name, how, exits=exits)
    if exits:
        with st.expander("To change a threshold, without exporting again"):
            st.caption("pip install onnx numpy")
            st.code(lines_to_change(name), language="python", wrap_lines=True)


def parity_sentence(parity: Mapping[str, Any] | None, model: Model) -> str:
    """What the gate found when the file was written."""
    if model.file_name == "model.onnx":
        return "Nothing to compare: the uploaded ONNX graph is handed out as it came."
    if parity is None:
        return ROUNDED
    samples, error, same = (parity[name] for name in ("samples", "logit_error", "same_answer"))
    return (
        f"Compared on {samples:,} samples of the dataset: logits differ by at most {error:.1e} of the "
        f"largest one, and {numbers.share(same)} of the answers are the same."
    )


def _how_to_run(name: str, how: Mapping[str, Any], *, exits: bool) -> None:
    st.markdown("**To run it**")
    st.caption("pip install onnxruntime numpy")
    st.code(lines_to_run(name, how, exits=exits), language="python", wrap_lines=True)
    with st.expander("From a picture file to that array"):
        st.caption("pip install pillow numpy")
        st.code(lines_to_prepare(how), language="python", wrap_lines=True)


def lines_to_run(file: str, how: Mapping[str, Any], *, exits: bool = False) -> str:
    """A program that answers for an array of pictures. how: the model's preprocessing."""
    return RUN_IT.format(file=file, answer=ONE_BY_ONE if exits else TOGETHER, **how)


def lines_to_change(file: str) -> str:
    """A program that changes a threshold of a file with exits."""
    return CHANGE_IT.format(file=file)


def lines_to_prepare(how: Mapping[str, Any]) -> str:
    """A program that brings a picture into the model's geometry, as the workers do."""
    resize = (CROP if how.get("resize") else STRETCH).format(**how)
    return TO_AN_ARRAY.format(**{**how, "resize": resize}, mode="L" if how["channels"] == 1 else "RGB")
