"""Captions below pictures of samples: classes by the names that the data gave them."""

import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import streamlit as st

from app.components import exit_gallery
from app.components.plain import plain


def test_a_class_is_called_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Markdown below its pictures, the browser would ask another site for one more."""
    name, captions = "![x](http://host/p.png)", list[str]()

    def image(_: Any, caption: list[str], **__: Any) -> None:
        captions.extend(caption)

    monkeypatch.setattr(exit_gallery, "_told", lambda *_: name)
    monkeypatch.setattr(st, "image", image)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as pictures:
        pictures.writestr("3", b"")
        exit_gallery._row(np.array([3, 4]), cast("Any", None), [name], pictures)
    assert captions == [plain(name)]
