"""Where does the time go, and what is left to win? The layers of one point, and of another one beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

import app.session
from app import numbers
from app.charts.profile import Colour
from app.charts.variants import moved_words
from app.components.asked_job import working
from app.components.error_box import error_box
from app.components.graph_link import graph_link
from app.components.linked import linked_choice
from app.components.live import live
from app.components.plain import plain
from app.components.profile_panels import (
    comparison_table,
    layers_table,
    one_picture,
    roofline_panel,
    two_pictures,
)
from app.profiles import Found, difference, left_to_win, sentence
from app.queueing import queue_profile
from db import analyses, jobs, variants
from db.models import Analysis, Job, Run, Stage, Variant

NOTHING = ""
NEW = (
    "No profile yet. ONNX Runtime is asked how long each of its operators takes, on real samples and one "
    "thread; that takes about ten seconds a file."
)
SAME = "Both are the same file."
COLOURS: tuple[Colour, ...] = ("Time", "Precision", "MACs")


@dataclass(frozen=True)
class Point:
    """A variant that can be profiled."""

    variant: Variant
    stage: Stage
    run: Run

    @property
    def label(self) -> str:
        return name_of(self.variant, self.stage, self.run)

    @property
    def file_sha256(self) -> str | None:
        return variants.stored(self.variant, self.stage, "file")


def main() -> None:
    live("/api/state/runs", key="live", seconds=2)
    st.title("Where the time goes")
    chosen, beside = _choices()
    if chosen is None:
        return
    if beside is not None and beside.file_sha256 == chosen.file_sha256:
        st.caption(SAME)
        beside = None
    shown = [point for point in (chosen, beside) if point is not None]
    with app.session.reading() as session:
        job = jobs.latest(session, [chosen.stage.id], "profile").get(chosen.stage.id)
        rows = analyses.of_stages(session, "profile", [point.stage.id for point in shown])
    both = _pair(chosen, beside, rows)
    _actions(chosen, beside, there=both[0] is not None and (beside is None or both[1] is not None), job=job)
    waiting = working(job)
    if job is not None and job.state == "failed" and job.error:
        error_box(job.error)
    if both[0] is None:
        if not waiting:
            st.info(NEW)
        return
    _show(chosen, both[0], beside, both[1])


def _choices() -> tuple[Point | None, Point | None]:
    """The point, and what stands beside it: the model as uploaded, as long as nothing else is asked for."""
    asked = [st.query_params.get(name) for name in ("variant", "against")]
    points: dict[str, Point] = {}
    for name in asked:
        if name and name not in points:
            points |= {point.variant.id: point for point in _of_run(name)}
    if asked[0] not in points:
        st.info("Choose a point in Trade-offs, and there “Where the time goes”.")
        st.page_link("views/tradeoffs.py", label="Trade-offs", icon=":material/scatter_plot:")
        return None, None
    names = {name: point.label for name, point in points.items()}
    left, right = st.columns(2)
    chosen = points[linked_choice(left.container(), "Point", names, key="variant")]
    others = {name: label for name, label in names.items() if points[name].stage.id != chosen.stage.id}
    first = next((name for name in others if points[name].stage.index == 0), NOTHING)
    order = {first: others.get(first, "Nothing"), NOTHING: "Nothing", **others}
    against = linked_choice(right.container(), "Beside", order, key="against")
    return chosen, points.get(against)


def _of_run(variant_id: str) -> list[Point]:
    """All variants of the run that this one belongs to."""
    with app.session.reading() as session:
        return [Point(*found) for found in variants.of_run_with(session, variant_id)]


def name_of(variant: Variant, stage: Stage, run: Run) -> str:
    """The baseline by that word; a stage on the way by its number."""
    if stage.index == 0:
        return "Baseline"
    last = stage.index == len(run.recipe.get("steps", []))
    moved = moved_words(json.dumps(variant.thresholds) if variant.file_sha256 else None)
    return f"{run.name}{'' if last else f' · stage {stage.index}'}{moved}"


def _pair(chosen: Point, beside: Point | None, rows: Sequence[Analysis]) -> tuple[Found | None, Found | None]:
    """Of one session if there is one, since only such times compare; else the newest of the point alone.

    rows: newest first.
    """
    own = _of_file(chosen, rows)
    newest = next(iter(own.values()), None)
    others = {} if beside is None else _of_file(beside, rows)
    together = next((session for session in own if session in others), None)
    if together is None:
        return (None if newest is None else _found(newest)), None
    return _found(own[together]), _found(others[together])


def _of_file(point: Point, rows: Sequence[Analysis]) -> dict[str, Analysis]:
    """By session; of other files that the same stage has had or saved there are profiles too."""
    whose = (point.stage.id, point.file_sha256)
    return {
        row.document["session"]: row for row in rows if (row.stage_id, row.document["file_sha256"]) == whose
    }


def _found(row: Analysis) -> Found:
    return Found.of(row.document, row.target, row.created_at)


def _actions(chosen: Point, beside: Point | None, *, there: bool, job: Job | None) -> None:
    busy = job is not None and job.state in ("queued", "running")
    with st.container(horizontal=True, vertical_alignment="center"):
        label = "Profile again" if there else "Profile" if beside is None else "Profile side by side"
        if st.button(label, icon=":material/timer:", type="tertiary" if there else "primary", disabled=busy):
            ids = [point.variant.id for point in (chosen, beside) if point is not None]
            queue_profile(chosen.stage.id, ids, again=there)
            st.rerun()
        graph_link("variants", chosen.variant.id)
        st.page_link(
            "views/runs.py", label="Open the run", icon=":material/timeline:",
            query_params={"run": chosen.run.id},
        )  # fmt: skip


def _show(chosen: Point, found: Found, beside: Point | None, other: Found | None) -> None:
    profile = found.profile
    st.markdown(f"**{plain(sentence(profile), 600)}**")
    if profile.layers:
        st.caption(f"*{left_to_win(profile)}*")
    st.caption(f"{' · '.join([difference(profile), *profile.marks])}.")
    colour = st.segmented_control(
        "Colour by", COLOURS, default=COLOURS[0], required=True, key="colour", bind="query-params"
    )
    before = None if other is None else other.profile
    if beside is None or before is None:
        one_picture(profile, colour)
    else:
        two_pictures((beside.label, before), (chosen.label, profile), colour)
    names = ["Layers", *(["Before and after"] if before else []), "Roofline"]
    tabs = dict(zip(names, st.tabs(names), strict=True))
    with tabs["Layers"]:
        layers_table(profile)
    if before:
        with tabs["Before and after"]:
            comparison_table(before, profile)
    with tabs["Roofline"]:
        files = [(chosen.label, profile)]
        roofline_panel([*([(beside.label, before)] if beside and before else []), *files])
    st.caption(
        f"{profile.calls:,} calls · {numbers.target_name(json.dumps(dict(found.target)))} · "
        f"{numbers.age(found.taken_at)} ago. Only ONNX Runtime is asked for the times of its layers; other "
        "runtimes fuse them in other ways. What the profile itself costs is measured and taken off."
    )


main()
