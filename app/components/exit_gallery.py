"""Samples that left early, late, and with another answer than the full model's."""

import zipfile
from collections.abc import Sequence

import numpy as np
import streamlit as st

from app.components.plain import plain
from app.exits import Outcome
from app.session import artifacts

PER_ROW = 8
PICTURE_PX = 64


def exit_gallery(outcome: Outcome, classes: Sequence[str], sha256: str | None) -> None:
    """classes: their names. sha256: of the pictures of the validation samples."""
    pictures = _open(sha256)
    if pictures is None:
        st.caption("Pictures of the samples were not kept. Retry the run to see them.")
        return
    changed = outcome.changed
    worse = int(outcome.explored.validation.worse[changed, outcome.taken[changed]].sum())
    rows = (
        ("Left early, the surest of every class", outcome.early(PER_ROW)),
        ("Went to the end, the least sure of every class", outcome.late(PER_ROW)),
        (
            f"Another answer by leaving early: {len(changed):,} samples, {worse:,} for the worse",
            changed[:PER_ROW],
        ),
    )
    with st.container(key="gallery"):
        for title, samples in rows:
            st.markdown(f"**{title}**")
            _row(samples, outcome, classes, pictures)


def _row(samples: np.ndarray, outcome: Outcome, names: Sequence[str], pictures: zipfile.ZipFile) -> None:
    known = [int(sample) for sample in samples if str(sample) in pictures.NameToInfo]
    if not known:
        st.caption("None.")
        return
    st.image(
        [pictures.read(str(sample)) for sample in known],
        caption=[plain(_told(outcome, sample, names)) for sample in known],
        width=PICTURE_PX,
    )


def _told(outcome: Outcome, sample: int, names: Sequence[str]) -> str:
    """cat, or with a wrong answer: cat, not dog."""
    kept = outcome.explored.kept
    right = names[kept.labels["validation"][sample]]
    answer = names[kept.guesses["validation"][sample, outcome.taken[sample]]]
    return right if answer == right else f"{right}, not {answer}"


@st.cache_resource(max_entries=8, show_spinner=False)
def _opened(sha256: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(artifacts().path(sha256))


def _open(sha256: str | None) -> zipfile.ZipFile | None:
    try:
        return _opened(sha256) if sha256 else None
    except KeyError:
        return None
