"""One slider per exit, and two limits that set them; the thresholds live in the URL."""

import math

import streamlit as st

from app.components.linked import remember
from app.components.plain import plain
from app.exits import Explored, Outcome, labels_of, rounded, thresholds_of
from app.numbers import milliseconds, share
from db.models import Variant
from workers.errors import StepFailed

#: In the URL: thresholds, the first exit's first.
NAME = "thresholds"
HOW = (
    "A sample leaves at the first exit whose score is greater than its threshold. The steps of a slider are "
    "about equal shares of the samples, so that it moves finely where many scores lie."
)


class ExitSliders:
    """Thresholds of one variant; those of others are kept apart."""

    def __init__(self, variant: Variant, explored: Explored) -> None:
        self.explored, self.variant = explored, variant
        self.keys = [f"exit-{number}-{variant.id}" for number in range(1, len(explored.grids) + 1)]
        self.given = f"given-{variant.id}"
        self.refused = f"refused-{variant.id}"
        if self.given not in st.session_state:
            asked = _asked(len(self.keys), explored.report.never)
            st.session_state[self.given] = asked or rounded(thresholds_of(variant))
        for key, value in zip(self.keys, st.session_state[self.given], strict=True):
            st.session_state.setdefault(key, value)

    def current(self) -> tuple[float, ...]:
        return tuple(st.session_state[key] for key in self.keys)

    def draw(self, outcome: Outcome) -> None:
        """outcome: of the current thresholds."""
        for place, key in enumerate(self.keys):
            options = sorted(self.explored.grids[place] | {st.session_state[self.given][place]})
            st.select_slider(
                f"Exit {place + 1} · after {plain(self.explored.report.cuts[place])}", options,
                format_func=labels_of(options).__getitem__, key=key, help=HOW if place == 0 else None,
                on_change=self._forget_refusal,
            )  # fmt: skip
            st.caption(_leaving(outcome, place))
        remember({NAME: ",".join(f"{value:.9g}" for value in self.current())})
        self._limits(outcome)

    def _limits(self, outcome: Outcome) -> None:
        rows = (
            ("Lose at most (points)", "max_drop", self.explored.report.max_drop, 0.1, "%.2f"),
            ("Take at most (ms)", "max_ms", round(outcome.explored.middle_ms, 3), 0.001, "%.3f"),
        )
        for label, name, default, step, form in rows:
            key = f"{name}-{self.variant.id}"
            with st.container(horizontal=True, vertical_alignment="bottom"):
                st.number_input(label, 0.0, value=default, step=step, format=form, key=key)
                st.button("Solve", key=f"solve-{key}", on_click=self._solve, args=(name, key))
        if self.refused in st.session_state:
            st.warning(st.session_state[self.refused])

    def _solve(self, name: str, key: str) -> None:
        limit = st.session_state[key]
        self._forget_refusal()
        try:
            point = self.explored.frontier.solve(**{name: limit})
        except StepFailed:
            st.session_state[self.refused] = _why(self.explored, name)
            return
        for slider, value in zip(self.keys, rounded(point.thresholds), strict=True):
            st.session_state[slider] = value

    def _forget_refusal(self) -> None:
        st.session_state.pop(self.refused, None)


def _leaving(outcome: Outcome, place: int) -> str:
    """Of all samples, and of those that come so far."""
    own, reach = outcome.point.share[place], 1 - sum(outcome.point.share[:place])
    told = f"{share(own)} of the samples leave here"
    if place and reach > 0:
        told += f", {share(own / reach)} of those that come so far"
    return told


def _why(explored: Explored, name: str) -> str:
    fastest = explored.frontier.points[-1]
    if name == "max_ms":
        return f"No thresholds are that fast: the fastest take {milliseconds(fastest.mean_ms)} on average."
    best = max(point.accuracy for point in explored.frontier.points)
    return f"No thresholds lose so little: the most accurate are right for {share(best, 2)} of the samples."


def _asked(exits: int, never: float) -> list[float] | None:
    """What the URL says, if that can be."""
    try:
        values = [float(text) for text in st.query_params.get(NAME, "").split(",")]
    except ValueError:
        return None
    fine = len(values) == exits and all(math.isfinite(value) and value >= 0 for value in values)
    return rounded(min(value, never) for value in values) if fine else None
