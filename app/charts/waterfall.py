"""What every stage did to one number: from where to where, and whether that is for the better."""

from typing import cast

import altair as alt
import pandas as pd

from app.charts.theme import BETTER, NEUTRAL, WORSE, themed

ROW_PX = 46


def waterfall(stages: pd.DataFrame, *, title: str, form: str, better: str) -> alt.LayerChart:
    """stages: columns `stage` (lines, with | between them) and `value`, in order, the baseline first.

    form: of the numbers. better: "higher" or "lower". The scale does not start at zero: what is read is the
    change.
    """
    frame = stages.assign(before=stages["value"].shift().fillna(stages["value"]), place=range(len(stages)))
    gains = frame["value"] > frame["before"] if better == "higher" else frame["value"] < frame["before"]
    frame["effect"] = gains.map({True: "better", False: "worse"})
    lines = alt.Axis(
        labelExpr="split(datum.label, '|')",
        labelLimit=120,
        labelOverlap=False,
        labelFontSize=11,
        ticks=False,
    )
    base = alt.Chart(frame).encode(y=alt.Y("stage:N", sort=list(frame["stage"]), title=None, axis=lines))
    scale = alt.Scale(zero=False, padding=44)  # room for the numbers beside the bars
    x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=3))
    colour = alt.Color(
        "effect:N", scale=alt.Scale(domain=["better", "worse"], range=[BETTER, WORSE]), legend=None
    )
    moved = alt.datum.place > 0
    bars = (
        base.transform_filter(moved).mark_bar(size=16, opacity=0.75).encode(x=x, x2="before:Q", color=colour)
    )
    ticks = base.mark_tick(size=28, thickness=2, color=NEUTRAL, orient="vertical").encode(x=x)
    # Beyond the bar's end, so that the bar does not hide it.
    text = base.encode(x=x, text=alt.Text("value:Q", format=form))
    less = text.transform_filter("datum.value < datum.before").mark_text(dx=-5, align="right", color=NEUTRAL)
    other = text.transform_filter("!(datum.value < datum.before)").mark_text(
        dx=5, align="left", color=NEUTRAL
    )
    chart = cast("alt.LayerChart", alt.layer(bars, ticks, less, other))
    return themed(chart, ROW_PX * len(frame) + 60)
