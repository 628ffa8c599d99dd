"""The drop zone for data, and the data sets that go by a word."""

import streamlit as st

from app.components.drop_zone import drop_zone
from app.imports import queue_dataset

TITLE = "Drop labelled pictures here"
DETAIL = "A .zip with one folder per class, or an .npz with images and labels."
FORM = """
A .zip holds one folder per class, with or without `train`, `validation` and `test` above them. An .npz holds
`images` (N, H, W) or (N, H, W, C) as uint8 and `labels` (N). Splits that are missing are taken from train:
*calibration* sets ranges, *validation* decides, *test* is only reported.
"""


def upload_dataset() -> str | None:
    """The id of a dataset that was just uploaded, once."""
    uploaded = drop_zone("dataset", title=TITLE, detail=DETAIL, accept=".zip,.npz")
    with st.expander("Which form the files take"):
        st.markdown(FORM)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text("Or take")
        for word in ("sample", "FashionMNIST", "CIFAR10"):
            if st.button("5,000 digits (sample)" if word == "sample" else word, key=f"take-{word}"):
                uploaded = queue_dataset(word, upload_sha256=None)
    return uploaded
