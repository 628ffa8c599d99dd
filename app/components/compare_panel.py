"""Two points side by side: their numbers, the difference, and how each of them came about."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

import app.session
from app.answers import Answers, answers_of, paired
from app.components.plain import plain
from app.components.run_charts import changes
from app.components.run_details import titles
from app.components.variant_panel import (
    ROWS,
    Found,
    close_button,
    compare_with,
    numbers_table,
    read_variants,
    variant_recipe,
)
from app.numbers import change, faster, points
from db import runs
from db.models import Measurement
from db.variants import stored

Difference = Callable[[float, float], str]


#: Milliseconds of two runs were taken in two sessions, so they have no entry: the ratio to the baseline of
#: the same session is what compares.
DIFFERENCES: dict[str, Difference] = {
    "accuracy": lambda first, second: points(second - first),
    "latency_ratio": lambda first, second: faster(second / first),
    **dict.fromkeys(("size", "size_compressed", "parameters", "macs"), change),
}


def compare_panel(frame: pd.DataFrame, chosen: str, second: str, target: dict[str, Any]) -> None:
    """frame: of the chart, with the baseline."""
    labels = dict(zip(frame["variant"], frame["label"], strict=True))
    baseline = next(iter(frame.loc[frame["baseline"], "variant"]), None)
    known = read_variants(name for name in (baseline, chosen, second) if name)
    st.markdown(f"**{plain(labels[second])}** against **{plain(labels[chosen])}**")
    numbers = numbers_table([(labels[name], found[0].measurements) for name, found in known.items()], target)
    first, other = (known[name][0].measurements for name in (chosen, second))
    told = differences(first, other, target).reindex(numbers.index)
    st.table(numbers.assign(Difference=told), border="horizontal")
    st.caption(
        "Milliseconds of two runs come from two sessions; what compares is the latency relative to the "
        "baseline of the same session."
    )
    named = labels[second] if labels[second] != labels[chosen] else f"{labels[second]} (2)"
    _answers(known[chosen], known[second], (labels[chosen], named))
    for name in (chosen, second):
        st.markdown(f"**{plain(labels[name])}**, stage by stage")
        _stages(known[name], target)
        variant_recipe(known[name])
    compare_with(frame, labels, chosen, second)
    close_button()


def differences(
    first: Sequence[Measurement], second: Sequence[Measurement], target: dict[str, Any]
) -> "pd.Series[str]":
    """Of the second to the first, by the title of the number; a dash where the two do not compare."""
    told = {}
    for name, split, title in ROWS:
        before, after = (_value(taken, name, split, target) for taken in (first, second))
        how = DIFFERENCES.get(name)
        told[title] = "–" if how is None or before is None or after is None else how(before, after)
    return pd.Series(told)


def _value(
    taken: Sequence[Measurement], name: str, split: str | None, target: dict[str, Any]
) -> float | None:
    found = (m.value for m in taken if (m.name, m.split) == (name, split) and m.target in (None, target))
    return next(found, None)


def _answers(first: Found, second: Found, labels: tuple[str, str]) -> None:
    """Where both answer differently: per class, and the samples themselves."""
    st.markdown("**Answers on the validation samples**")
    before, after = (answers_of(stored(found[0], found[1], "answers")) for found in (first, second))
    both = None if before is None or after is None else paired(before, after)
    if before is None or after is None or both is None:
        st.caption("Single answers were not kept for both points. Retry their runs to compare them.")
        return
    lost, won, p = both
    st.text(
        f"{won} samples are right only in {labels[1]}, {lost} only in {labels[0]}: "
        f"{'more than chance explains' if p < 0.05 else 'chance explains that'} (McNemar p = {p:.2g})."
    )
    with app.session.reading() as session:
        run = runs.whole(session, first[2].id)
    assert run is not None
    facts = run.experiment.dataset.facts or {}
    names = np.array([str(entry["name"]) for entry in facts["classes"]])
    per_class, flipped = st.tabs(["Accuracy per class (%)", f"Flipped samples ({won + lost})"])
    with per_class:
        st.dataframe(
            class_table(names, dict(zip(labels, (before, after), strict=True))).round(1), hide_index=True
        )
    with flipped:
        rows = np.flatnonzero(before.right != after.right)
        columns = {"Right": before.labels, labels[0]: before.guesses, labels[1]: after.guesses}
        told = {title: names[values[rows]] for title, values in columns.items()}
        st.dataframe(pd.DataFrame({"Sample": rows, **told}), hide_index=True)


def class_table(names: np.ndarray, answers: Mapping[str, Answers]) -> pd.DataFrame:
    """Accuracy per class in % of each of two, and the points between them."""
    shares = {label: 100 * found.per_class(len(names)) for label, found in answers.items()}
    first, second = shares.values()
    return pd.DataFrame({"Class": names, **shares, "Points": second - first})


def _stages(found: Found, target: dict[str, Any]) -> None:
    """From the baseline to this point: what each stage took, gave and cost."""
    _, stage, run = found
    with app.session.reading() as session:
        whole = runs.whole(session, run.id)
    if whole is not None:
        passed = [other for other in whole.stages if other.index <= stage.index]
        st.table(changes(passed, titles(whole), target), border="horizontal")
