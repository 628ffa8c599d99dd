"""What to expect of a recipe: guesses in grey italics, and what is known before hours of work."""

from collections.abc import Callable, Iterator, Mapping

import streamlit as st

from app import numbers
from app.components.live import live
from app.components.progress import job_progress
from app.predicting import Check, Outlook
from app.preflight import Place, left_of, place_of, sentences, unknown_latency
from app.recipes import Plain, trains

ROWS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("MACs", "macs", numbers.count),
    ("Parameters", "parameters", numbers.count),
    ("Size", "size", numbers.size),
)


def estimate_panel(
    recipe: Plain,
    baseline: Mapping[str, float | None],
    outlook: Outlook,
    *,
    runtime: str,
    trainable: bool,
    online: set[str],
) -> None:
    """baseline: `macs`, `parameters` and `size`, as far as they are known.

    runtime: what was asked for, or the name of a machine elsewhere.
    """
    place = place_of(runtime, recipe, online)
    with st.container(border=True):
        st.markdown("**What to expect**")
        rows = [
            _estimate(title, baseline.get(name), show, _left(recipe, name, outlook))
            for title, name, show in ROWS
        ]
        unknown = unknown_latency(outlook, place, trainable=trainable)
        rows += [_latency(recipe, outlook, unknown), _training(recipe, outlook)]
        st.markdown("\n".join(("| | Now | After |", "|:--|--:|--:|", *rows)))
        st.caption(" ".join(("Estimates in grey.", *_about_latency(recipe, outlook, place, unknown))))
        if outlook.job is not None and outlook.job.state in ("queued", "running"):
            live("/api/state/predictors", key="live-predictor")
            job_progress(outlook.job, key="predictor")
        for sentence in sentences(recipe, outlook, place, trainable=trainable, online=online):
            st.markdown(f":material/info: {sentence}")


def _estimate(
    title: str, before: float | None, show: Callable[[float | None], str], kept: float | None
) -> str:
    """A row: what is known in black, what is guessed in grey italics."""
    if before is None:
        return f"| {title} | – | {_grey('after the first run')} |"
    after = _grey("not known before") if kept is None else _guess(show(before * kept))
    return f"| {title} | {show(before)} | {after} |"


def _latency(recipe: Plain, outlook: Outlook, unknown: str) -> str:
    ratio = None if outlook.expected is None or unknown else outlook.expected.ratio
    if not recipe["steps"]:
        ratio = 1.0
    told = _grey("not known before") if ratio is None else _guess(numbers.faster(ratio))
    return f"| Latency | 1x | {told} |"


def _training(recipe: Plain, outlook: Outlook) -> str:
    if not trains(recipe):
        return "| Training time | – | none |"
    seconds = outlook.training_s
    told = _grey("after a first run") if seconds is None else _guess(numbers.duration(seconds))
    return f"| Training time | – | {told} |"


def _guess(value: str) -> str:
    return _grey(f"≈{numbers.NARROW}{value}")


def _grey(text: str) -> str:
    return f":gray[*{text}*]"


def _about_latency(recipe: Plain, outlook: Outlook, place: Place, unknown: str) -> Iterator[str]:
    """What the latency is guessed from and how far off such guesses were; or why there is no guess."""
    if not recipe["steps"]:
        return
    expected, target = outlook.expected, outlook.target
    why = unknown or (expected.why if expected is not None else "")
    if why or expected is None or target is None:
        measured = f" The run measures it{f' on {place.name}' if place.name else ''}."
        yield f"*No estimate of the latency: {why[:1].lower()}{why[1:]}{measured}*"
        return
    where = f"{target.software}, {target.threads} thread{'s' * (target.threads != 1)}"
    yield f"Latency: {where}, guessed from times of this model's layers; {_checked(outlook.check)}."
    yield from expected.notes


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
