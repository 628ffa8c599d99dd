"""What to expect of a recipe: guesses in grey italics, and what is known before hours of work."""

from collections.abc import Callable, Iterator, Mapping

import streamlit as st

from app import numbers
from app.components.live import live
from app.components.plain import plain
from app.components.progress import job_progress
from app.place import Place
from app.predicting import Check, Outlook
from app.preflight import NONE, left_of, sentences, unknown_latency
from app.queueing import retry
from app.recipes import Plain, trains
from db.models import Job
from workers.places import USUAL

UNKNOWN = "not known"
ROWS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("MACs", "macs", numbers.count),
    ("Parameters", "parameters", numbers.count),
    ("Size", "size", numbers.size),
)


def estimate_panel(
    recipe: Plain,
    baseline: Mapping[str, float | None],
    outlook: Outlook,
    place: Place,
    *,
    trainable: bool,
    online: set[str],
) -> None:
    """baseline: `macs`, `parameters` and `size`, as far as they are known."""
    with st.container(border=True):
        st.markdown("**What to expect**")
        rows = [
            _estimate(title, baseline.get(name), show, _left(recipe, name, outlook))
            for title, name, show in ROWS
        ]
        unknown = unknown_latency(outlook, place, trainable=trainable)
        rows += [_latency(recipe, outlook, unknown), _training(recipe, outlook)]
        st.markdown("\n".join(("| | Now | After |", "|:--|--:|--:|", *rows)))
        told = (*_about_latency(recipe, outlook, place, unknown), *_about_training(recipe, outlook))
        st.caption(" ".join(("Estimates in grey.", *told)))
        if outlook.job is not None:
            _timing(outlook.job, online, ended=bool(recipe["steps"]) and place.runtime == USUAL)
        for sentence in sentences(recipe, outlook, place, trainable=trainable, online=online):
            st.markdown(f":material/info: {plain(sentence, 600)}")


def _timing(job: Job, online: set[str], *, ended: bool) -> None:
    """How far the table is. ended: also where that was its end, and the way to try it again."""
    if job.state in ("queued", "running"):
        live("/api/state/predictors", key="live-predictor")
        job_progress(job, key="predictor", online=online)
    elif ended and job.state in ("failed", "cancelled"):
        fix = (job.error or {}).get("fix", "") if job.state == "failed" else ""
        if fix:
            st.caption(plain(fix, 600))
        if job.queue in online and st.button("Time the layers again", icon=":material/replay:"):
            retry(job)
            st.rerun()


def _estimate(
    title: str, before: float | None, show: Callable[[float | None], str], kept: float | None
) -> str:
    """A row: what is known in black, what is guessed in grey italics."""
    if before is None:
        return f"| {title} | – | {_grey('after the first run')} |"
    after = _grey(UNKNOWN) if kept is None else _guess(show(before * kept))
    return f"| {title} | {show(before)} | {after} |"


def _latency(recipe: Plain, outlook: Outlook, unknown: str) -> str:
    ratio = None if outlook.expected is None or unknown else outlook.expected.ratio
    if not recipe["steps"]:
        ratio = 1.0
    told = _grey(UNKNOWN) if ratio is None else _guess(numbers.faster(ratio))
    return f"| Latency | 1x | {told} |"


def _training(recipe: Plain, outlook: Outlook) -> str:
    if not trains(recipe):
        return "| Training | – | none |"
    seconds = outlook.training_s
    told = _grey(UNKNOWN) if seconds is None else _guess(numbers.duration(seconds))
    return f"| Training | – | {told} |"


def _guess(value: str) -> str:
    return _grey(f"≈{numbers.NARROW}{value}")


def _grey(text: str) -> str:
    return f":gray[*{text}*]"


def _about_latency(recipe: Plain, outlook: Outlook, place: Place, unknown: str) -> Iterator[str]:
    """What the latency is guessed from and how far off such guesses were; or why there is no guess."""
    if not recipe["steps"]:
        return
    expected, target = outlook.expected, outlook.target
    why = unknown or ("" if expected is None or not expected.why else f"{NONE}: {_inside(expected.why)}")
    if why or expected is None or target is None:
        yield _italic(why)
        return
    threads = f"{target.threads} thread{'s' * (target.threads != 1)}"
    where = f"{plain(place.name)}, {target.software}" if place.name else target.software
    checked = _checked(outlook.check)
    yield f"Latency: {where}, {threads}, guessed from times of this model's layers; {checked}."
    yield from (plain(note, 600) for note in expected.notes)


def _about_training(recipe: Plain, outlook: Outlook) -> Iterator[str]:
    if trains(recipe) and outlook.training_s is None:
        yield _italic("How long training takes is known after a first run.")


def _italic(sentence: str) -> str:
    return f"*{plain(sentence, 600)}*"


def _inside(sentence: str) -> str:
    """As it goes on behind a colon."""
    return sentence[:1].lower() + sentence[1:]


def _checked(check: Check | None) -> str:
    if check is None:
        return "not checked yet against a measured run"
    runs = f"{check.runs} measured run{'s' * (check.runs != 1)}"
    return f"mean error {100 * check.error:.1f}{numbers.NARROW}% over {runs}"


def _left(recipe: Plain, name: str, outlook: Outlook) -> float | None:
    """Share of a number that stays: from the widths that the recipe leads to, else from its amounts."""
    expected = outlook.expected
    found = None if expected is None else getattr(expected, name)
    return left_of(recipe, name) if found is None else float(found)
