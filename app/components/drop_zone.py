"""Where files are dropped; they go to /api/uploads in chunks and never through Streamlit's memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

_HTML = """
<section data-state="idle">
  <div class="title idle"></div><div class="detail idle"></div>
  <button class="choose idle" type="button">Choose a file</button>
  <input class="input" type="file" tabindex="-1">
  <div class="name sending"></div><div class="bar sending"><div></div></div>
  <div class="status" role="status"></div>
  <button class="cancel sending" type="button">Cancel</button>
</section>
"""
_FOLDER = Path(__file__).parent
_zone = st.components.v2.component(
    "paredown_drop_zone",
    html=_HTML,
    css=_FOLDER.joinpath("drop_zone.css").read_text(),
    js=_FOLDER.joinpath("drop_zone.js").read_text(),
)


def drop_zone(
    noun: str,
    *,
    title: str,
    detail: str,
    accept: str,
    settings: Mapping[str, Any] | None = None,
    blocked: str | None = None,
) -> str | None:
    """The id of the model or dataset that was just uploaded, once; else None.

    noun: "model" or "dataset". settings: how the file is to be read; see `Announced` in app/api/uploads.py.
    blocked: what must be said first; a file that is dropped meanwhile is not sent.
    """
    said = {"noun": noun, **{k: v for k, v in (settings or {}).items() if v is not None}}
    data = {"title": title, "detail": detail, "accept": accept, "said": said, "blocked": blocked}
    uploaded: str | None = _zone(key=f"drop-{noun}", data=data, on_uploaded_change=lambda: None)["uploaded"]
    return uploaded
