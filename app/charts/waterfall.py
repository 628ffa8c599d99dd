"""What every stage did to one number: from where to where, and whether that is for the better."""

from typing import cast

import altair as alt
import pandas as pd

from app.charts.theme import BETTER, NEUTRAL, WORSE, themed

HEIGHT = 220


def waterfall(stages: pd.DataFrame, *, title: str, form: str, better: str) -> alt.LayerChart:
    """stages: columns `stage` (its title) and `value`, in order, the baseline first; form: of the numbers.

    better: "higher" or "lower". The scale does not start at zero: what is read is the change.
    """
    frame = stages.assign(before=stages["value"].shift().fillna(stages["value"]), place=range(len(stages)))
    gains = frame["value"] > frame["before"] if better == "higher" else frame["value"] < frame["before"]
    frame["effect"] = gains.map({True: "better", False: "worse"})
    base = alt.Chart(frame).encode(
        x=alt.X(
            "stage:N", sort=list(frame["stage"]), title=None,
            axis=alt.Axis(labelAngle=0, labelLimit=110, labelExpr="split(datum.label, ' ')", ticks=False,
                labelOverlap=False, labelFontSize=11),
        )
    )  # fmt: skip
    scale = alt.Scale(zero=False, padding=18)
    y = alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=4))
    colour = alt.Color(
        "effect:N", scale=alt.Scale(domain=["better", "worse"], range=[BETTER, WORSE]), legend=None
    )
    moved = alt.datum.place > 0
    bars = (
        base.transform_filter(moved).mark_bar(size=22, opacity=0.75).encode(y=y, y2="before:Q", color=colour)
    )
    ticks = base.mark_tick(size=44, thickness=2, color=NEUTRAL).encode(y=y)
    # Beyond the bar's end, so that the bar does not hide it.
    texts = [
        base.transform_filter(test)
        .mark_text(dy=dy, color=NEUTRAL, fontSize=12)
        .encode(y=y, text=alt.Text("value:Q", format=form))
        for test, dy in (("datum.value < datum.before", 11), ("!(datum.value < datum.before)", -9))
    ]
    return themed(cast("alt.LayerChart", alt.layer(bars, ticks, *texts)), HEIGHT)
