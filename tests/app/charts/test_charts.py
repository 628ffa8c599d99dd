"""Every chart compiles, and shows what it was given."""

import json
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from app.charts.curves import curve
from app.charts.pareto import pareto_chart
from app.charts.variants import MAX_POINTS, Goal, on_front
from app.charts.waterfall import waterfall


def variants(count: int, *, fastest: float = 0.1) -> pd.DataFrame:
    random = np.random.default_rng(0)
    ratio = np.r_[1.0, random.uniform(fastest, 1, count - 1)]
    accuracy = np.r_[0.95, random.uniform(0.6, 0.95, count - 1)]
    frame = pd.DataFrame({"ratio": ratio, "accuracy": accuracy, "latency_ms": 3 * ratio, "size_bytes": 1e6})
    for name in ("ratio", "latency", "accuracy"):
        value = frame["latency_ms" if name == "latency" else name]
        frame[f"{name}_low"], frame[f"{name}_high"] = 0.98 * value, 1.02 * value
    names = [f"v{i}" for i in range(count)]
    frame = frame.assign(
        variant=names,
        label=names,
        family="Pruning",
        runtime="onnxruntime",
        baseline=frame.index == 0,
        last=True,
    )
    return frame.assign(front=on_front(frame, "ratio"))


def spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    with alt.data_transformers.enable("default", max_rows=None):
        made: dict[str, Any] = json.loads(chart.to_json())
    return made


def marks(made: dict[str, Any]) -> list[str]:
    return [layer["mark"]["type"] for layer in made["layer"]]


def points_of(made: dict[str, Any]) -> dict[str, Any]:
    return next(layer for layer in made["layer"] if "tooltip" in layer["encoding"])


def test_shape_tells_runtimes_apart_where_there_are_several() -> None:
    frame = variants(20)
    assert "shape" not in points_of(spec(pareto_chart(frame, Goal(2.0, 0.5))))["encoding"]
    frame.loc[10:, "runtime"] = "openvino"
    shape = points_of(spec(pareto_chart(frame, Goal(2.0, 0.5))))["encoding"]["shape"]
    assert shape["scale"]["domain"] == ["onnxruntime", "openvino"]


@pytest.mark.parametrize("x", ["ratio", "latency_ms"])
def test_pareto_draws_goal_front_crosses_points_and_baseline(x: str) -> None:
    made = spec(pareto_chart(variants(20), Goal(2.0, 0.5), x=x, selected=["v3"]))
    assert marks(made) == "rect rule rule rule rule point line point point text".split()
    assert {parameter["name"] for parameter in made["params"]} == {"chosen", "second"}


def test_stages_on_the_way_are_faded_and_without_crosses() -> None:
    frame = variants(20)
    made = spec(pareto_chart(frame.assign(last=frame.index < 15), Goal(2.0, 0.5)))
    points = points_of(made)
    faded = points["encoding"]["opacity"]
    assert faded["condition"]["test"] == "datum.last"
    assert faded["value"] < 0.5 < faded["condition"]["value"]
    crosses = next(layer for layer in made["layer"] if layer["mark"].get("aria") is False)
    assert len(made["datasets"][crosses["data"]["name"]]) == 15


def test_no_goal_without_a_baseline() -> None:
    made = spec(pareto_chart(variants(20).assign(baseline=False), Goal(2.0, 0.5)))
    assert "rect" not in marks(made)


@pytest.mark.parametrize(("fastest", "scale"), [(0.05, "log"), (0.4, None)])
def test_wide_latencies_are_logarithmic(fastest: float, scale: str | None) -> None:
    made = spec(pareto_chart(variants(200, fastest=fastest), Goal(2.0, 0.5)))
    points = points_of(made)
    assert points["encoding"]["x"]["scale"].get("type") == scale


def test_many_variants_are_about_ten_thousand_marks_with_the_whole_front() -> None:
    frame = variants(30_000)
    made = spec(pareto_chart(frame, Goal(2.0, 0.5)))
    sizes = [len(rows) for rows in made["datasets"].values()]
    assert max(sizes) == MAX_POINTS
    assert sum(sizes) < 10_000


def test_ticks_of_an_accuracy_are_told_apart() -> None:
    """A change of a tenth of a point had five ticks, told as 96.6, 96.7, 96.7, 96.8 and 96.8 %."""
    points = pd.DataFrame({"stage": "a", "epoch": [0, 1], "accuracy": [0.966, 0.968]})
    axis = spec(curve(points, "accuracy"))["encoding"]["y"]["axis"]
    assert (axis["format"], axis["tickMinStep"]) == (".1%", 0.001)


def test_curve_leaves_out_epochs_without_the_number() -> None:
    points = pd.DataFrame({"stage": "Fine-tuning", "epoch": [0, 1, 2], "loss": [None, 0.4, 0.2]})
    (rows,) = spec(curve(points, "loss"))["datasets"].values()
    assert [row["epoch"] for row in rows] == [1, 2]


def test_waterfall_colours_by_what_is_better() -> None:
    stages = pd.DataFrame({"stage": ["Baseline", "Pruning", "Fine-tuning"], "value": [3.0, 2.0, 2.5]})
    (rows,) = spec(waterfall(stages, title="ms", form=".1f", better="lower"))["datasets"].values()
    assert [row["effect"] for row in rows[1:]] == ["better", "worse"]
    (rows,) = spec(waterfall(stages, title="share", form=".1%", better="higher"))["datasets"].values()
    assert [row["effect"] for row in rows[1:]] == ["worse", "better"]
