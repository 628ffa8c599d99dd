"""From exported segments to the file that stops early: temperatures, path times, thresholds, the promise.

Everything is decided on the exported (perhaps quantized) segments: temperatures on `calibration`, thresholds
on `validation`; `test` is only kept for those who want to look at it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from workers.base import Bench, ExitPlan, Frozen, LabelledData, ModelSpec, Split, Target
from workers.calibration.checking import BATCH_SIZE, check_on_validation, said_before, said_by
from workers.calibration.choosing import choose
from workers.calibration.path_times import (
    BatchTimes,
    Interval,
    Paths,
    PathTimes,
    time_batches,
    time_paths,
    time_stream,
)
from workers.deploy.exit_parity import ExitParity
from workers.deploy.one_file import compose_one_file
from workers.exits.executor import Segment, all_logits, onnx_segments
from workers.exits.guarantee import Guarantee
from workers.exits.scores import never
from workers.exits.temperature import LEAST, MOST, fit_temperatures
from workers.exits.thresholds import Point, answers_to
from workers.host import logical_cores
from workers.turns import training_turn

#: Beside the file: the report, and the logits that other thresholds are tried on.
REPORT, LOGITS = "exits.json", "exit_logits.npz"
BATCHES = (1, 8, 32)
#: Above, logits are kept with half the digits.
MOST_BYTES = 64 << 20


class ExitsReport(Frozen):
    """What `exits.json` says. Exits are counted from 1; the last entry of temperatures, path_ms and share is
    that of the end."""

    cuts: tuple[str, ...]
    score: str
    temperatures: tuple[float, ...]
    #: A sample leaves at the first exit whose score is greater.
    thresholds: tuple[float, ...]
    #: With it an exit is never taken.
    never: float
    max_drop: float
    target: Target
    path_ms: tuple[float, ...]
    #: 95 % intervals of `path_ms`, and of its ratios to `baseline_ms`; empty where they are not known.
    path_intervals_ms: tuple[Interval, ...] = ()
    ratio_intervals: tuple[Interval, ...] = ()
    #: Of the model as uploaded, in the session of `path_ms`; None where it was not given.
    baseline_ms: float | None = None
    #: Of the validation samples.
    samples: int
    share: tuple[float, ...]
    accuracy: float
    full_accuracy: float
    mean_ms: float
    guarantee: Guarantee | None
    parity: ExitParity
    #: Measured at `thresholds`; None where thresholds were set later and on another machine.
    times: PathTimes | None
    #: None for thresholds that were set later.
    batches: tuple[BatchTimes, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """logits: per split (N, exits + 1, classes) float32, of all exits and the end. labels: per split (N,)."""

    plan: ExitPlan
    report: ExitsReport
    logits: dict[Split, np.ndarray]
    labels: dict[Split, np.ndarray]

    @property
    def notes(self) -> tuple[str, ...]:
        """For a reader of the result."""
        report = self.report
        shares = ", ".join(f"{share:.0%}" for share in report.share)
        told = (
            f"Of the validation samples {shares} leave at the exits and the end: {report.accuracy:.2%} are "
            f"right, {report.full_accuracy:.2%} without leaving early; {report.mean_ms:.3f} ms on average, "
            f"{report.path_ms[-1]:.3f} ms to the end."
        )
        return told, *report.notes

    def keep(self, folder: Path) -> None:
        """Write REPORT and LOGITS."""
        write_report(self.report, folder / REPORT)
        self.keep_logits(folder / LOGITS)

    def keep_logits(self, path: Path) -> None:
        """Write an .npz with `validation_logits`, `validation_labels`, `test_logits` and `test_labels`."""
        kept: dict[str, np.ndarray] = {}
        for split in ("validation", "test"):
            logits = self.logits[split]
            kept[f"{split}_logits"] = logits.astype(np.float16) if logits.nbytes > MOST_BYTES else logits
            kept[f"{split}_labels"] = self.labels[split]
        np.savez_compressed(path, allow_pickle=False, **kept)


def calibrate(
    segments: Sequence[Path],
    plan: ExitPlan,
    file: Path,
    spec: ModelSpec,
    bench: Bench,
    *,
    staged: Sequence[Segment] | None = None,
    baseline: Path | None = None,
    seed: int = 0,
    seconds: float = 2.0,
) -> Calibration:
    """Choose temperatures and thresholds, write the composed `file`, compare and time it.

    staged: the PyTorch segments that the file must equal;
    None where the files are all there is, such as after quantization. baseline: the model as uploaded, to
    be timed beside the paths. seconds: per path and batch size.
    Raises GateFailed, and StepFailed for segments that cannot be put together.
    """
    opened = onnx_segments(segments, threads=logical_cores())
    splits: tuple[Split, ...] = ("calibration", "validation", "test")
    logits = {split: _logits(opened, bench.data, split) for split in splits}
    labels = {split: bench.data.labels(split) for split in splits}
    temperatures = fit_temperatures(logits["calibration"], labels["calibration"])
    plan = plan.model_copy(update={"temperatures": temperatures})
    paths = _paths(segments, plan, spec, bench, baseline, seconds)
    answers = answers_to(labels["validation"], logits["validation"], plan, paths.path_ms)
    point, promised = choose(answers, max_drop=plan.max_drop, confidence=plan.confidence, seed=seed)
    plan = plan.model_copy(update={"thresholds": point.thresholds})
    compose_one_file(segments, plan, file, spec, bench.data.classes)
    batches = said_before(logits["validation"], bench.data) if staged is None else said_by(staged, bench.data)
    parity, told = check_on_validation(file, plan, batches, len(answers.scores), bench.tell)
    report = ExitsReport(
        cuts=plan.cuts,
        score=plan.score,
        temperatures=temperatures,
        thresholds=point.thresholds,
        never=never(plan.score, len(point.thresholds)),
        max_drop=plan.max_drop,
        target=bench.target,
        path_ms=paths.path_ms,
        path_intervals_ms=paths.intervals,
        ratio_intervals=paths.ratios,
        baseline_ms=paths.baseline_ms,
        samples=len(answers.scores),
        share=point.share,
        accuracy=point.accuracy,
        full_accuracy=float(answers.correct[:, -1].mean()),
        mean_ms=point.mean_ms,
        guarantee=promised,
        parity=parity,
        times=time_stream(file, len(point.thresholds), plan, _at(bench, 1), seconds=seconds),
        batches=tuple(
            time_batches(file, segments, plan, _at(bench, batch), seconds=seconds) for batch in BATCHES
        ),
        notes=_notes(temperatures, point, promised, plan.max_drop) + told,
    )
    return Calibration(plan, report, logits, labels)


def write_report(report: ExitsReport, path: Path) -> None:
    path.write_text(report.model_dump_json(indent=2) + "\n")


def _logits(segments: Sequence[Segment], data: LabelledData, split: Split) -> np.ndarray:
    found = []
    for inputs, _ in data.batches(split, BATCH_SIZE):
        with training_turn():  # not timed, but it would disturb another job's timing
            found.append(all_logits(segments, [inputs.numpy()]))
    return np.concatenate(found)


def _paths(
    segments: Sequence[Path],
    plan: ExitPlan,
    spec: ModelSpec,
    bench: Bench,
    baseline: Path | None,
    seconds: float,
) -> Paths:
    """Of every way out, and of the baseline."""
    exits = len(segments) - 1
    provisional = plan.model_copy(update={"thresholds": (0.0,) * exits})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        compose_one_file(segments, provisional, file, spec, bench.data.classes)
        return time_paths(file, exits, plan, _at(bench, 1), baseline=baseline, seconds=seconds)


def _at(bench: Bench, batch: int) -> Bench:
    return replace(bench, target=bench.target.model_copy(update={"batch": batch}))


def _notes(
    temperatures: Sequence[float], point: Point, promised: Guarantee | None, max_drop: float
) -> tuple[str, ...]:
    notes = []
    if promised is not None:
        notes.append(promised.sentence)
        if promised.thresholds is None:
            notes.append(
                f"The thresholds lose at most {max_drop:g} points on the validation samples, without that "
                "promise."
            )
    if point.share[-1] == 1:
        notes.append(
            f"No sample leaves early: of no thresholds do the validation samples show that they lose at most "
            f"{max_drop:g} points. More validation samples show more."
        )
    names = [f"exit {number}" for number in range(1, len(temperatures))] + ["the end"]
    for name, temperature in zip(names, temperatures, strict=True):
        if not LEAST * 1.01 < temperature < MOST / 1.01:
            notes.append(
                f"The temperature of {name} lies at the edge of what is searched, {temperature:.3g}: its "
                "probabilities say little, such as when it is right about every calibration sample."
            )
    return tuple(notes)
