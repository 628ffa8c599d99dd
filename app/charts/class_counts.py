"""How many samples each class has."""

import altair as alt
import pandas as pd

from app.charts.theme import OKABE_ITO, themed

ROW_PX, MOST = 22, 40


def class_counts(counts: pd.DataFrame) -> alt.Chart:
    """counts: columns `name` and `count`. Of more than MOST classes the smallest are shown."""
    shown = counts if len(counts) <= MOST else counts.nsmallest(MOST, "count")
    bars: alt.Chart = (
        alt.Chart(shown)
        .mark_bar(color=OKABE_ITO[0], size=14)
        .encode(
            x=alt.X("count:Q", title="Samples", axis=alt.Axis(tickMinStep=1, tickCount=5, format="~s")),
            y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=160, labelOverlap=False)),
            tooltip=[
                alt.Tooltip("name:N", title="Class"),
                alt.Tooltip("count:Q", title="Samples", format=","),
            ],
        )
    )
    return themed(bars, ROW_PX * len(shown) + 70)
