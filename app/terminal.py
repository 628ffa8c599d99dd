"""What the command line draws: progress, the table of stages, the list of methods, errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:  # `paredown --help` should not wait for torch
    from app.doctor import Finding
    from workers.base import Measurement, Method, Target
    from workers.pipeline import Event, Outcome
    from workers.places import RuntimeFacts
    from workers.recipe import Recipe
    from workers.stages import Stage

#: Where the output is a file or a pipe there is no width to fit into.
_WIDE = None if Console().is_terminal else 200
out = Console(width=_WIDE, highlight=False, emoji=False)
err = Console(stderr=True, width=_WIDE, highlight=False, emoji=False)


_HEADINGS = (
    "Accuracy % (validation)", "Accuracy % (test)", "p50 ms", "p90 ms", "Latency", "Size", "Parameters",
    "MACs", "Took",
)  # fmt: skip


class RunProgress:
    """One line that says what is going on; a line that stays for every finished stage."""

    def __init__(self, recipe: Recipe) -> None:
        self._stages = len(recipe.steps) + 1
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=err, transient=True
        )
        self._task = self._bar.add_task("Starting", total=1.0)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        self._bar.update(self._task, description=escape(printable(text)), completed=0.0)

    def take(self, event: Event) -> None:
        name = event.method or "baseline"
        if event.finished is not None:
            how = _took(event.finished)
            self._bar.console.print(f"{event.stage + 1}/{self._stages} {name}: {how}")
            return
        self._bar.update(
            self._task,
            description=escape(f"{event.stage + 1}/{self._stages} {name}: {event.progress.text}"),
            completed=event.progress.share,
        )


def show_outcome(outcome: Outcome, problems: tuple[str, ...], folder: Path) -> None:
    """A table of stages per target, then what the reader should know, then where the files are."""
    from workers.report import FILES

    taken = [m for stage in outcome.stages for m in stage.measurements if m.target is not None]
    for target in dict.fromkeys(m.target for m in taken if m.target is not None):
        _show_stages(outcome.stages, target)
    for stage in outcome.stages:
        for note in stage.notes:
            out.print(f"{stage.method}: {note}", markup=False, soft_wrap=True)
    for sentence in (*problems, *outcome.warnings):
        out.print(printable(sentence), markup=False, soft_wrap=True)
    names = ", ".join(name for name in FILES if (folder / name).exists())
    out.print(printable(f"Written to {folder}: {names}"), markup=False, soft_wrap=True)


def _show_stages(stages: Sequence[Stage], target: Target) -> None:
    """The stages on one target, and why some have no numbers there."""
    table = Table(title=None, header_style="bold")
    table.add_column("Stage")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for stage in stages:
        table.add_row(*_cells(stage, target))
    out.print(table)
    out.print(
        f"Latency: {target.engine}, {target.device}, {target.threads} thread(s), batch {target.batch}, "
        "against the baseline timed in the same session. In brackets: 95 % intervals."
    )
    for stage in stages:
        for mark in dict.fromkeys(
            mark for m in stage.measurements if m.target == target and m.value is None for mark in m.marks
        ):
            out.print(f"{stage.method or 'baseline'}: {mark}", markup=False, soft_wrap=True)


def show_runtimes(runtimes: Sequence[RuntimeFacts]) -> None:
    """One line per runtime; below those that do not work here, why and what adds them."""
    for facts in runtimes:
        if facts.missing:
            out.print(f"[yellow]missing[/]  [bold]{facts.id}[/bold]: {escape(facts.missing)}")
            out.print(Padding(escape(facts.install), (0, 0, 0, 9)))
            continue
        names = ", ".join(facts.names)
        out.print(f"[green]ok[/]       [bold]{names}[/bold]: {facts.title} {facts.version}")


def show_methods(methods: Mapping[str, type[Method]]) -> None:
    """Each method with its settings, their defaults, bounds and meaning."""
    for name, method in methods.items():
        out.print(f"[bold]{name}[/bold]  {escape(method.title)} ({method.family})")
        out.print(Padding(escape((method.__doc__ or "").strip()), (0, 0, 0, 2)))
        if method.caution:
            out.print(Padding(f"[yellow]Note:[/yellow] {escape(method.caution)}", (0, 0, 0, 2)))
        out.print(Padding(f"Source: {escape(method.source)}", (0, 0, 0, 2)))
        properties = method.model_json_schema()["properties"]
        for field in method.settings():
            schema = properties[field]
            out.print(
                Padding(
                    f"[bold]{field}[/bold] = {schema['default']}  {escape(_bounds(schema))}"
                    f"{escape(schema['description'])}",
                    (0, 0, 0, 2),
                )
            )
        out.print()


def show_findings(findings: Sequence[Finding]) -> None:
    """One line per thing that was looked at, and the way to add what is missing."""
    for finding in findings:
        mark = (
            "[green]ok[/]     "
            if finding.well
            else "[red]missing[/]"
            if finding.needed
            else "[yellow]notice[/] "
        )
        out.print(f"{mark}  [bold]{finding.name}[/bold]: {escape(finding.what)}")
        if not finding.well:
            out.print(Padding(escape(finding.fix), (0, 0, 0, 9)))


def show_error(text: str) -> None:
    """One paragraph on stderr; long lines are left to the terminal, so that code in them can be copied."""
    err.print(f"[bold red]Error[/bold red] {escape(printable(text))}", soft_wrap=True)


def printable(text: str) -> str:
    """File names may hold bytes that are no text; they become question marks."""
    return text.encode(errors="replace").decode()


def _bounds(schema: Mapping[str, object]) -> str:
    if schema.get("type") == "boolean":
        return "(True | False) "
    if "enum" in schema:
        return f"({' | '.join(map(str, schema['enum']))}) "  # type: ignore[call-overload]
    low, high = (
        next((f"{sign} {schema[key]}" for key, sign in keys if key in schema), "")
        for keys in (
            (("minimum", ">="), ("exclusiveMinimum", ">")),
            (("maximum", "<="), ("exclusiveMaximum", "<")),
        )
    )
    return f"({', '.join(part for part in (low, high) if part)}) " if low or high else ""


def _cells(stage: Stage, target: Target) -> list[str]:
    def cell(how: Callable[[Measurement], str], name: str, split: str | None = None) -> str:
        found = (m for m in stage.measurements if m.name == name and split in (None, m.split))
        measured = next((m for m in found if m.target in (None, target)), None)
        # Of a runtime that cannot run the stage there is nothing; what cannot be known says so itself.
        return "–" if measured is None or (measured.target and measured.value is None) else how(measured)

    return [
        stage.method or "baseline",
        cell(_accuracy, "accuracy", "validation"),
        cell(_accuracy, "accuracy", "test"),
        cell(_latency, "latency_p50"),
        cell(_latency, "latency_p90"),
        cell(_ratio if stage.index else _own, "latency_ratio"),
        cell(_bytes, "size"),
        cell(_count, "parameters"),
        cell(_count, "macs"),
        _took(stage),
    ]


def _bytes(m: Measurement) -> str:
    return _count(m, "B")


def _took(stage: Stage) -> str:
    return "from cache" if stage.cached else f"{stage.seconds:.1f} s"


def _accuracy(m: Measurement) -> str:
    return f"{100 * (m.value or 0):.1f} ({100 * (m.low or 0):.1f}–{100 * (m.high or 0):.1f})"


def _latency(m: Measurement) -> str:
    return f"{m.value:.3f} ({m.low:.3f}–{m.high:.3f})"


def _ratio(m: Measurement) -> str:
    """A share of the baseline's latency, said as how much faster."""
    ratio, faster = m.value or 1, (m.value or 1) <= 1
    told = f"{1 / ratio:.2f}x faster" if faster else f"{ratio:.2f}x slower"
    if m.low and m.high:  # a ratio of means has none
        low, high = (1 / m.high, 1 / m.low) if faster else (m.low, m.high)
        told += f" ({low:.2f}–{high:.2f})"
    return told + _marks(m)


def _own(m: Measurement) -> str:
    """The baseline's ratio to itself."""
    return f"1x{_marks(m)}"


def _marks(m: Measurement) -> str:
    return f", {', '.join(m.marks)}" if m.marks else ""


def _count(m: Measurement, unit: str = "") -> str:
    if m.value is None:
        return "not known"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if m.value >= 0.9995 * factor:  # what rounds up to it belongs to it
            return f"{m.value / factor:.3g} {letter}{unit}"
    return f"{m.value:g} {unit}".strip()
