"""One look for light and dark: colours that stand on both, Streamlit's own text and fonts."""

from typing import TypeVar

import altair as alt

#: Okabe & Ito 2008, told apart by colour-blind readers; black and yellow are left out, since each is lost
#: on one of the two backgrounds.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
NEUTRAL = "#888888"
BETTER, WORSE = "#009E73", "#D55E00"

Chart = TypeVar("Chart", alt.Chart, alt.LayerChart)


def themed(chart: Chart, height: int) -> Chart:
    """Grid and frame as thin as they can be read; the rest is Streamlit's theme."""
    chart.height = height
    looks = alt.Config(
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(gridColor=NEUTRAL, gridOpacity=0.15, domain=False, tickColor=NEUTRAL),
        legend=alt.LegendConfig(orient="bottom", title=None, symbolType="circle", labelLimit=240),
    )
    chart.config = looks
    return chart


def colours(names: list[str]) -> alt.Scale:
    """The same list gives the same colours; from the seventh name on all are grey."""
    return alt.Scale(domain=names, range=[*OKABE_ITO, *[NEUTRAL] * len(names)][: len(names)])
