"""A dataset in numbers and pictures: classes, splits, samples, what was found and done."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app.charts.class_counts import MOST, class_counts
from app.components.figures import figures
from app.components.plain import plain
from app.session import artifacts
from db.models import Dataset

SPLITS = ("train", "calibration", "validation", "test")
PER_ROW = 8


def show_dataset(dataset: Dataset) -> None:
    facts = dataset.facts or {}
    st.caption(_headline(facts))
    figures({split.capitalize(): f"{facts['splits'].get(split, 0):,} samples" for split in SPLITS})
    counts = pd.DataFrame(facts["classes"])
    if len(counts) > MOST:
        st.caption(f"The {MOST} smallest of {len(counts):,} classes")
    st.altair_chart(class_counts(counts))
    _samples(facts.get("samples", []))
    _problems(facts["problems"])


def _headline(facts: Mapping[str, Any]) -> str:
    (low_h, low_w), (high_h, high_w) = facts["smallest"], facts["largest"]
    sides = f"{low_w} × {low_h} px"
    if (low_h, low_w) != (high_h, high_w):
        sides += f" to {high_w} × {high_h} px"
    colour = "grey" if facts["channels"] == 1 else "colour"
    samples = sum(facts["splits"].values())
    return f"{samples:,} {colour} pictures of {sides} in {len(facts['classes']):,} classes"


def _samples(samples: Sequence[Mapping[str, str]]) -> None:
    """Sixteen at most, two rows of eight, all in the same square."""
    for first in range(0, len(samples), PER_ROW):
        for column, sample in zip(st.columns(PER_ROW), samples[first : first + PER_ROW], strict=False):
            try:
                column.image(artifacts().path(sample["sha256"]).read_bytes(), width="stretch")
            except KeyError:
                column.caption("lost")
            column.caption(plain(sample["class"], 12))


def _problems(problems: Sequence[str]) -> None:
    with st.container(gap="xsmall"):
        st.markdown("**Found, and what was done**")
        if not problems:
            st.caption("Nothing: no corrupt file, no tiny class, no picture in two splits.")
        for sentence in problems:
            st.text(f"• {sentence}")
