"""When may a sample leave early, and what does it cost? Thresholds of a file with exits, moved and saved."""

import json
from dataclasses import dataclass

import pandas as pd
import streamlit as st

import app.session
from app import numbers
from app.charts.exits import exits_line, frontier_chart, leaving_by_class
from app.charts.variants import moved_words
from app.components.exit_gallery import exit_gallery
from app.components.exit_sliders import NAME, ExitSliders
from app.components.exit_times import exit_times
from app.components.linked import linked_choice
from app.components.live import live
from app.components.save_point import save_point
from app.components.static_rival import static_rival
from app.exits import Explored, Outcome, explored, rounded, saved_report, thresholds_of
from app.rival import Contest, rivals
from db import jobs, runs, variants
from db.models import Job, Run, Stage, Variant
from workers.calibration.moving import NO_PROMISE
from workers.work.pictures import FACT


@dataclass(frozen=True)
class Shown:
    """What the page is about, read once per visit.

    saved: all variants of the stage. saving: the job that was last to add one. baseline: accuracy of the
    model as uploaded. contest: the exits against static networks.
    """

    variant: Variant
    stage: Stage
    run: Run
    explored: Explored
    saved: tuple[Variant, ...]
    saving: Job | None
    baseline: float | None
    contest: Contest


def main() -> None:
    live("/api/state/runs", key="live", seconds=2)
    st.title("Exits")
    with app.session.reading() as session:
        found = variants.with_exits(session)
    if not found:
        return _empty()
    names = {v.id: _name(v, stage, run) for v, stage, run in found}
    chosen = linked_choice(st.container(), "Point", names, key="variant", belongs=[NAME])
    variant, stage, run = next(three for three in found if three[0].id == chosen)
    shown = _read(variant, stage, run, tuple(v for v, other, _ in found if other.id == stage.id))
    if shown is None:
        st.warning("The store has lost what the exits said. Retry the run to explore it.")
        return None
    _way_through(shown)
    _explorer(shown)
    return None


def _empty() -> None:
    st.info("No model with early exits yet. Queue a run whose last step is Early exits; it is explored here.")
    st.page_link("views/new_run.py", label="New run", icon=":material/add:")


def _name(variant: Variant, stage: Stage, run: Run) -> str:
    moved = moved_words(json.dumps(variant.thresholds) if variant.file_sha256 else None)
    then = "" if stage.method == "early_exit" else ", quantized"
    return f"{run.name}{then}{moved} · {run.experiment.model.name} on {run.experiment.dataset.name}"


def _read(variant: Variant, stage: Stage, run: Run, saved: tuple[Variant, ...]) -> Shown | None:
    found = explored(stage)
    if found is None:
        return None
    target = found.report.target.model_dump(mode="json")
    with app.session.reading() as session:
        whole = runs.whole(session, run.id)
        rows = variants.comparison(session, run.experiment_id)
        queued = runs.of_experiment(session, run.experiment_id)
        latest = jobs.latest(session, [other.id for other in queued])
        saving = jobs.latest(session, [stage.id], "thresholds").get(stage.id)
    assert whole is not None
    taken = {
        s.index: {(m.name, m.split): m.value for m in s.own.measurements if m.target in (None, target)}
        for s in whole.stages
    }
    return Shown(
        variant,
        stage,
        run,
        found,
        saved,
        saving,
        taken.get(0, {}).get(("accuracy", "validation")),
        Contest(
            [{"method": s.method, **s.settings} for s in whole.stages if 0 < s.index <= stage.index],
            _without_exits(found, stage, taken.get(stage.index - 1, {}).get(("latency_ratio", "validation"))),
            rivals([row | {"target": json.loads(row["target"])} for row in rows], target),
            [(other.id, other.name, _state(latest.get(other.id)), other.recipe) for other in queued],
        ),
    )


def _without_exits(found: Explored, stage: Stage, before: float | None) -> float:
    """Latency ratio of the same network without them. before: of the stage before this one."""
    if stage.method == "early_exit" or found.report.baseline_ms is None:
        return before or 1.0
    # Quantized since, and never without exits: the longest way takes that, and a little more.
    return found.report.path_ms[-1] / found.report.baseline_ms


def _state(job: Job | None) -> str | None:
    return None if job is None else job.state


def _way_through(shown: Shown) -> None:
    report = shown.explored.report
    st.caption(
        f"{report.samples:,} validation samples · score: {report.score} · "
        f"{numbers.target_name(report.target.model_dump_json())}"
    )
    st.altair_chart(
        exits_line(report.cuts, report.path_ms), alt="Blocks between the exits, as long as they take"
    )


@st.fragment
def _explorer(shown: Shown) -> None:
    """Everything that moves with the thresholds; only this runs again when a slider is let go."""
    sliders = ExitSliders(shown.variant, shown.explored)
    outcome = shown.explored.at(sliders.current())
    facts = shown.run.experiment.dataset.facts or {}
    classes = [str(entry["name"]) for entry in facts["classes"]]
    _three_numbers(outcome)
    left, right = st.columns([2, 3], gap="large")
    with left:
        sliders.draw(outcome)
    with right:
        _frontier(outcome, shown.baseline)
        _promise(outcome)
    known = next((v for v in shown.saved if rounded(thresholds_of(v)) == rounded(outcome.thresholds)), None)
    save_point(outcome.thresholds, shown.variant, shown.stage, shown.run, known=known, job=shown.saving)
    exit_times(outcome, None if known is None else saved_report(known, shown.stage))
    static_rival(outcome, shown.run, shown.contest)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown("**Where samples leave, by class**")
        st.altair_chart(
            leaving_by_class(outcome.by_class, classes), key="by-class",
            alt="Share of each class that leaves at each exit",
        )  # fmt: skip
    with right:
        exit_gallery(outcome, classes, facts.get(FACT))


def _three_numbers(outcome: Outcome) -> None:
    point, full, report = outcome.point, outcome.explored.frontier.full, outcome.explored.report
    # The end of this file comes later than that of the model as uploaded, by its heads and branches.
    uploaded = report.baseline_ms is not None
    full_ms = report.path_ms[-1] if report.baseline_ms is None else report.baseline_ms
    shown = (
        ("Accuracy (validation)", numbers.share(point.accuracy, 2), numbers.points(point.accuracy - full, 2)),
        ("Mean latency", numbers.milliseconds(point.mean_ms), numbers.faster(point.mean_ms / full_ms)),
        ("p99 latency", numbers.milliseconds(outcome.p99_ms), numbers.faster(outcome.p99_ms / full_ms)),
    )
    for column, (title, value, change) in zip(st.columns(3), shown, strict=True):
        column.metric(title, value, change, delta_color="off", delta_arrow="off")
    st.caption(
        f"Accuracy is against the end of the model, latency against "
        f"{'the model as uploaded' if uploaded else 'the longest way through this file'}. "
        f"Test: {numbers.share(outcome.test_accuracy, 2)}. Latencies come from the times of the ways out, "
        "measured in one session."
    )


def _promise(outcome: Outcome) -> None:
    promised = outcome.explored.report.guarantee
    if promised is None:
        return
    if outcome.thresholds == tuple(outcome.explored.calibrated) or promised.thresholds is None:
        icon = "verified" if promised.thresholds else "info"
        st.caption(f":material/{icon}: {promised.sentence}")
    else:
        st.caption(f":orange[:material/gpp_maybe: {NO_PROMISE}]")


def _frontier(outcome: Outcome, baseline: float | None) -> None:
    found = outcome.explored
    frontier = pd.DataFrame(
        [
            {
                "ms": point.mean_ms,
                "accuracy": point.accuracy,
                "hover": f"{numbers.share(point.accuracy, 2)} · {numbers.milliseconds(point.mean_ms)} · "
                f"thresholds {numbers.thresholds(point.thresholds)}",
            }
            for point in found.frontier.points
        ]
    )
    others = list(found.always)
    if baseline is not None and found.report.baseline_ms is not None:
        others.append(("Baseline", found.report.baseline_ms, baseline))
    static = pd.DataFrame(others, columns=["name", "ms", "accuracy"])
    static["hover"] = [
        f"{name}: {numbers.share(accuracy, 2)} · {numbers.milliseconds(ms)}" for name, ms, accuracy in others
    ]
    chart = frontier_chart(frontier, static, (outcome.point.mean_ms, outcome.point.accuracy))
    st.altair_chart(chart, key="frontier", alt="Accuracy over mean latency of all sensible thresholds")


main()
