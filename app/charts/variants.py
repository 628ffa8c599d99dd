"""The frame that Trade-offs draws: one row per variant on one target; its front, its goal, its thinning."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from app import numbers
from workers.base import FASTEST

Floats = npt.NDArray[np.float64]

MAX_POINTS = 9_000
#: Thin crosses are drawn for every point up to here, then for the line of the front alone.
MAX_CROSSES = 300
#: Steps that only win back accuracy do not name a family of their own.
RECOVERY = "fine_tuning"
WORDS = {"fine_tuning": "fine-tuning", "low_rank": "low rank", "early_exit": "early exits"}


@dataclass(frozen=True)
class Goal:
    """max_drop_points: accuracy that may be lost, in points. max_latency_ratio: of the baseline's latency."""

    max_drop_points: float
    max_latency_ratio: float


def variants_frame(
    rows: Iterable[Mapping[str, Any]],
    methods: Iterable[tuple[str, int, str]],
    families: Mapping[str, str],
) -> pd.DataFrame:
    """rows: of one target (`db.variants.comparison`). methods: (run, index, method) of every stage.

    The model as uploaded is stage 0 of every run: it becomes one row, marked `baseline`. `last` marks what a
    run came to: only those rows are compared; the stages before are on their way.
    """
    frame = pd.DataFrame.from_records(list(rows))
    if frame.empty:
        return frame
    steps: dict[str, dict[int, str]] = {}
    for run, index, method in methods:
        steps.setdefault(run, {})[index] = method
    runtimes = {target: json.loads(target)["runtime"] for target in frame["target"].unique()}
    frame["runtime"] = frame["target"].map(runtimes)
    if FASTEST in runtimes.values():  # the first mark is the one it was
        frame["runtime"] = [json.loads(marks)[0].split()[0] for marks in frame["marks"]]
    frame["baseline"] = frame["index"] == 0
    doubles = frame["baseline"] & frame["baseline"].duplicated()
    frame = frame[~doubles].reset_index(drop=True)
    last = frame["run"].map(lambda run: max(steps.get(run, {0: ""})))
    frame["family"] = [
        "Baseline"
        if index == 0
        else family_of([m for i, m in sorted(steps[run].items()) if i <= index], families)
        for run, index in zip(frame["run"], frame["index"], strict=True)
    ]
    frame["last"] = frame["baseline"] | (frame["index"] == last)
    stage = " · stage " + frame["index"].astype(str)
    frame["label"] = frame["name"] + np.where(frame["last"], "", stage)
    told = [
        moved_words(moved if isinstance(moved, str) else None) for moved in frame["moved"]
    ]  # NaN: no text
    frame["label"] += told
    frame.loc[frame["baseline"], "label"] = "Baseline"
    return frame


def moved_words(thresholds: str | None) -> str:
    """What tells a point with other thresholds from the one it was moved from; they come as JSON."""
    return f" · exits at {numbers.thresholds(json.loads(thresholds).values())}" if thresholds else ""


def family_of(methods: Sequence[str], families: Mapping[str, str]) -> str:
    """ "Pruning + quantization": the families in order, each once."""
    found = list(dict.fromkeys(families.get(method, method) for method in methods))
    telling = [family for family in found if family != RECOVERY] or found
    words = " + ".join(WORDS.get(family, family) for family in telling)
    return words[:1].upper() + words[1:]


def on_front(frame: pd.DataFrame, x: str) -> "pd.Series[bool]":
    """True for every last stage that no other one dominates; intervals are those of `variants_frame`.

    A point dominates another one when it is no less accurate, no slower as far as its interval tells, and in
    one of the two better by more than its interval. Accuracies are of the same samples, so their order
    counts as it is; without intervals this is the usual front.
    """
    stem = x.removesuffix("_ms")
    candidates = frame[frame["last"]]
    latency, accuracy = candidates[x].to_numpy(), candidates["accuracy"].to_numpy()
    fast, slow = (candidates[f"{stem}_{end}"].fillna(candidates[x]).to_numpy() for end in ("low", "high"))
    surely = candidates["accuracy_low"].fillna(candidates["accuracy"]).to_numpy()
    dominated = _best_before(slow, accuracy, latency, "left") >= accuracy  # surely faster
    dominated |= _best_before(fast, surely, latency, "right") > accuracy  # surely more accurate
    return pd.Series(~dominated, candidates.index).reindex(frame.index, fill_value=False)


def _best_before(x: Floats, y: Floats, limits: Floats, side: Literal["left", "right"]) -> Floats:
    """Per limit the largest y among the points whose x is below it (left) or at most it (right)."""
    order = np.argsort(x, kind="stable")
    best = np.maximum.accumulate(np.r_[-np.inf, y[order]])
    return best[np.searchsorted(x[order], limits, side)]


def staircase(front: pd.DataFrame, x: str) -> pd.DataFrame:
    """The points of a front that a line goes through: each more accurate than all faster ones."""
    steps = front.sort_values([x, "accuracy"], ascending=[True, False])
    return steps[steps["accuracy"] > steps["accuracy"].cummax().shift(fill_value=-np.inf)]


def within_goal(frame: pd.DataFrame, goal: Goal) -> "pd.Series[bool]":
    """True where both parts of the goal are met; False for every row when there is no baseline."""
    floor = accuracy_floor(frame, goal)
    met: pd.Series[bool] = (frame["accuracy"] >= floor - 1e-9) & (
        frame["ratio"] <= goal.max_latency_ratio + 1e-9
    )
    return met


def accuracy_floor(frame: pd.DataFrame, goal: Goal) -> float:
    """The lowest accuracy the goal allows; NaN without a baseline."""
    baseline = frame.loc[frame["baseline"], "accuracy"]
    return float(baseline.iloc[0]) - goal.max_drop_points / 100 if len(baseline) else float("nan")


def best_within(frame: pd.DataFrame, goal: Goal) -> "pd.Series[Any] | None":
    """The fastest last stage that meets the goal; the most accurate of those within its interval."""
    met = frame[within_goal(frame, goal) & frame["last"] & ~frame["baseline"]]
    if met.empty:
        return None
    fastest = met.sort_values("ratio").iloc[0]
    limit = fastest["ratio"] if pd.isna(fastest["ratio_high"]) else fastest["ratio_high"]
    alike = met[met["ratio"] <= limit]
    best: pd.Series[Any] = alike.sort_values(["accuracy", "ratio"], ascending=[False, True]).iloc[0]
    return best


def thinned(frame: pd.DataFrame, keep: "pd.Series[bool]", limit: int = MAX_POINTS) -> pd.DataFrame:
    """At most `limit` rows, evenly drawn, the same ones every time; those to keep are always there."""
    if len(frame) <= limit:
        return frame
    rest = frame[~keep]
    drawn = rest.sample(min(len(rest), max(0, limit - int(keep.sum()))), random_state=0)
    return frame.loc[sorted([*frame.index[keep], *drawn.index])]
