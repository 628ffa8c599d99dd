"""Loss and accuracy over the epochs of a run."""

import altair as alt
import pandas as pd

from app.charts.theme import colours, themed

HEIGHT = 300
#: Title and format of the axis, whose steps it tells apart; without one as many digits as that needs.
AXES: dict[str, tuple[str, str | None]] = {
    "loss": ("Training loss", None),
    "accuracy": ("Accuracy (validation)", ".1%"),
}


def curve(points: pd.DataFrame, name: str) -> alt.Chart:
    """points: columns `stage` (its title), `epoch` and the named value; rows without it are left out."""
    points = points.dropna(subset=[name])
    title, form = AXES.get(name, (name, None))
    stages = list(dict.fromkeys(points["stage"]))
    chart = alt.Chart(points[["stage", "epoch", name]]).mark_line(
        point=alt.OverlayMarkDef(size=30), strokeWidth=2
    )
    lines: alt.Chart = chart.encode(
        x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y(
            f"{name}:Q",
            title=title,
            scale=alt.Scale(zero=False),
            axis=alt.Axis(format=form, tickCount=5, tickMinStep=0.001) if form else alt.Axis(tickCount=5),
        ),
        color=alt.Color("stage:N", scale=colours(stages), legend=alt.Legend() if len(stages) > 1 else None),
        tooltip=["stage:N", "epoch:Q", alt.Tooltip(f"{name}:Q", title=title, format=".4f")],
    )
    return themed(lines, HEIGHT)
