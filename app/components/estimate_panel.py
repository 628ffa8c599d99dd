"""What to expect of a recipe: guesses in grey italics, and what is known before hours of work."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import streamlit as st

from app import numbers
from app.components.live import live
from app.components.progress import job_progress
from app.predicting import Check, Outlook
from app.queueing import queue_for
from app.recipes import Plain, trains
from workers.places import USUAL
from workers.recipe import Recipe

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
    """baseline: `macs`, `parameters` and `size`, as far as they are known. runtime: what was asked for."""
    with st.container(border=True):
        st.markdown("**What to expect**")
        rows = [
            _estimate(title, baseline.get(name), show, _left(recipe, name, outlook))
            for title, name, show in ROWS
        ]
        rows += [_latency(recipe, outlook, runtime), _training(recipe, outlook)]
        st.markdown("\n".join(("| | Now | After |", "|:--|--:|--:|", *rows)))
        st.caption(" ".join(("Estimates in grey.", *_about_latency(outlook, runtime, trainable, online))))
        if outlook.job is not None and outlook.job.state in ("queued", "running"):
            live("/api/state/predictors", key="live-predictor")
            job_progress(outlook.job, key="predictor")
        for sentence in (*preflight(recipe, trainable=trainable, online=online), *_why(outlook)):
            st.markdown(f":material/info: {sentence}")


def _estimate(title: str, before: float | None, show: Callable[[float | None], str], kept: float) -> str:
    """A row: what is known in black, what is guessed in grey italics."""
    if before is None:
        return f"| {title} | – | {_grey('after the first run')} |"
    return f"| {title} | {show(before)} | {_guess(show(before * kept))} |"


def _latency(recipe: Plain, outlook: Outlook, runtime: str) -> str:
    ratio = None if outlook.expected is None or runtime != USUAL else outlook.expected.ratio
    if not recipe["steps"]:
        ratio = 1.0
    told = _grey("not known before") if ratio is None else _guess(numbers.faster(ratio))
    return f"| Latency | 1x | {told} |"


def _training(recipe: Plain, outlook: Outlook) -> str:
    if not trains(recipe):
        return "| Training time | | none |"
    seconds = outlook.training_s
    told = _grey("after a first run") if seconds is None else _guess(numbers.duration(seconds))
    return f"| Training time | | {told} |"


def _guess(value: str) -> str:
    return _grey(f"≈{numbers.NARROW}{value}")


def _grey(text: str) -> str:
    return f":gray[*{text}*]"


def _about_latency(outlook: Outlook, runtime: str, trainable: bool, online: set[str]) -> Iterator[str]:
    """What the latency is guessed from, and how far off such guesses were."""
    if not trainable:
        yield "Latency is measured by the run."
    elif runtime != USUAL:
        yield "Latency is guessed for ONNX Runtime on the processor alone; the run measures it."
    elif outlook.target is not None:
        threads = outlook.target.threads
        where = f"{outlook.target.software}, {threads} thread{'s' * (threads != 1)}"
        yield f"Latency: {where}, guessed from times of this model's layers; {_checked(outlook.check)}."
    elif outlook.job is not None and outlook.job.state == "failed":
        yield f"Latency cannot be guessed: {(outlook.job.error or {}).get('what', 'timing layers failed.')}"
    elif online:
        yield "Latency follows once this model's layers are timed, behind everything else that is queued."


def _checked(check: Check | None) -> str:
    if check is None:
        return "not checked yet against a measured run"
    runs = f"{check.runs} measured run{'s' * (check.runs != 1)}"
    return f"mean error {100 * check.error:.1f}{numbers.NARROW}% over {runs}"


def _why(outlook: Outlook) -> Iterator[str]:
    if outlook.expected is not None:
        said = (outlook.expected.why, *outlook.expected.notes)
        yield from (f"Latency: {sentence}" for sentence in said if sentence)


def _left(recipe: Plain, name: str, outlook: Outlook) -> float:
    """Share of a number that stays: from the widths that the recipe leads to, else from its amounts."""
    expected = outlook.expected
    if expected is None or expected.macs is None or expected.parameters is None:
        return left_of(recipe, name)
    if name == "size":
        return expected.parameters * left_of(recipe, "size", families=("quantization",))
    return expected.macs if name == "macs" else expected.parameters


def left_of(recipe: Mapping[str, Any], name: str, families: tuple[str, ...] = ()) -> float:
    """Share of a number that the steps leave, as far as their amounts tell. families: empty counts all."""
    steps = Recipe.model_validate(recipe).steps
    return math.prod(step.left.get(name, 1.0) for step in steps if not families or step.family in families)


def preflight(recipe: Plain, *, trainable: bool, online: set[str]) -> list[str]:
    """What a person should know before it is queued."""
    steps, found = recipe["steps"], []
    if not steps:
        found.append("Without steps this run measures the model as it is: the baseline.")
    if steps and not trainable:
        found.append("This model is an ONNX file; its steps need a trainable model (.pt2).")
    if _ends_pruned(recipe):
        found.append("Pruning without fine-tuning after it usually costs much accuracy.")
    if left_of(recipe, "macs") < 0.15:
        found.append("So little is left that the accuracy may not come back.")
    if not online:
        found.append("No worker is online. The run waits until one is.")
    elif trains(recipe) and queue_for(recipe, online) == "cpu":
        found.append("No GPU worker is online: the CPU takes it. Training is slower there.")
    return found


def _ends_pruned(recipe: Mapping[str, Any]) -> bool:
    """True when channels go and nothing trains with what is left."""
    read = Recipe.model_validate(recipe).steps
    cut = max((index for index, step in enumerate(read) if step.family == "pruning"), default=None)
    return cut is not None and not any(step.trains for step in read[cut:])
