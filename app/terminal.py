"""What the command line draws: progress, the table of stages, the list of methods, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    from workers.base import Measurement, Method
    from workers.pipeline import Event, Outcome
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
    """The table of stages, then what the reader should know, then where the files are."""
    from workers.report import FILES

    table = Table(title=None, header_style="bold")
    table.add_column("Stage")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for stage in outcome.stages:
        table.add_row(*_cells(stage))
    out.print(table)
    target = next(m.target for m in outcome.stages[0].measurements if m.target is not None)
    out.print(
        f"Latency: {target.runtime}, {target.device}, {target.threads} thread(s), batch {target.batch}, "
        "against the baseline timed in the same session. In brackets: 95 % intervals."
    )
    for stage in outcome.stages:
        for note in stage.notes:
            out.print(f"{stage.method}: {note}", markup=False, soft_wrap=True)
    for sentence in (*problems, *outcome.warnings):
        out.print(printable(sentence), markup=False, soft_wrap=True)
    names = ", ".join(name for name in FILES if (folder / name).exists())
    out.print(printable(f"Written to {folder}: {names}"), markup=False, soft_wrap=True)


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


def _cells(stage: Stage) -> list[str]:
    return [
        stage.method or "baseline",
        _accuracy(_find(stage, "accuracy", "validation")),
        _accuracy(_find(stage, "accuracy", "test")),
        _latency(_find(stage, "latency_p50")),
        _latency(_find(stage, "latency_p90")),
        _ratio(_find(stage, "latency_ratio")) if stage.index else "1x",
        _count(_find(stage, "size"), "B"),
        _count(_find(stage, "parameters")),
        _count(_find(stage, "macs")),
        _took(stage),
    ]


def _took(stage: Stage) -> str:
    return "from cache" if stage.cached else f"{stage.seconds:.1f} s"


def _find(stage: Stage, name: str, split: str | None = None) -> Measurement:
    return next(m for m in stage.measurements if m.name == name and split in (None, m.split))


def _accuracy(m: Measurement) -> str:
    return f"{100 * (m.value or 0):.1f} ({100 * (m.low or 0):.1f}–{100 * (m.high or 0):.1f})"


def _latency(m: Measurement) -> str:
    return f"{m.value:.3f} ({m.low:.3f}–{m.high:.3f})"


def _ratio(m: Measurement) -> str:
    """A share of the baseline's latency, said as how much faster."""
    ratio, low, high = m.value or 1, m.low or 1, m.high or 1
    if ratio <= 1:
        return f"{1 / ratio:.2f}x faster ({1 / high:.2f}–{1 / low:.2f}){_marks(m)}"
    return f"{ratio:.2f}x slower ({low:.2f}–{high:.2f}){_marks(m)}"


def _marks(m: Measurement) -> str:
    return f", {', '.join(m.marks)}" if m.marks else ""


def _count(m: Measurement, unit: str = "") -> str:
    if m.value is None:
        return "not known"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if m.value >= 0.9995 * factor:  # what rounds up to it belongs to it
            return f"{m.value / factor:.3g} {letter}{unit}"
    return f"{m.value:g} {unit}".strip()
