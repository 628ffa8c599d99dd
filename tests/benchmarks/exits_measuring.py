"""The trials of `exits` on the target: thresholds on validation, then everything timed in one session.

Every contender gets the thresholds that are fastest among those that lose at most MAX_DROP points on
validation against the network as uploaded; ours may also choose its score there. Mean, p50 and p99 are those
of the same real samples, one after another, as ratios to the network in ONNX Runtime.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import numpy as np

from tests.benchmarks.exits import Trial, load, place_of
from tests.benchmarks.exits_peers import EarlyonSession, earlyon_calibrated, earlyon_policy
from tests.benchmarks.fashion import Fashion
from workers.base import Bench, ExitPlan, Session, Split, Target
from workers.calibration.checking import said_before
from workers.catalog import RUNTIMES
from workers.deploy.exit_parity import check_exits
from workers.deploy.export import export_onnx
from workers.deploy.one_file import compose_one_file, set_thresholds
from workers.errors import StepFailed
from workers.exits.executor import Executor, all_logits, onnx_segments
from workers.exits.scores import Score, never
from workers.exits.temperature import fit_temperatures
from workers.exits.thresholds import Answers, Point, answers_to, find_frontier
from workers.host import host_facts
from workers.measures.latency import SITTINGS, alone, real_samples, sit

RESULTS = Path(__file__).parent / "results" / "exits.md"
TARGET = Target(host=host_facts().host)
MAX_DROP = 0.5
#: In each sitting.
ROUNDS = 250
BATCHES = (8, 32)
_SPLITS: tuple[Split, Split] = ("validation", "test")
Opener = Callable[[], Session]


@dataclass(frozen=True)
class Contender:
    """One trial, once its files are there."""

    trial: Trial
    folder: Path
    task: Fashion

    @property
    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("model.segment*.onnx"))

    @property
    def file(self) -> Path:
        return self.folder / "model.onnx"

    @cached_property
    def cuts(self) -> tuple[str, ...]:
        return tuple(json.loads((self.folder / "about.json").read_text())["cuts"])

    @cached_property
    def logits(self) -> dict[Split, np.ndarray]:
        """Per split (N, exits + 1, classes), from the files."""
        opened, data = onnx_segments(self.segments or [self.file], threads=1), self.task.data
        splits: tuple[Split, ...] = ("calibration", "validation", "test")
        return {
            split: all_logits(opened, (inputs.numpy() for inputs, _ in data.batches(split, 64)))
            for split in splits
        }

    def plan(self, score: Score) -> ExitPlan:
        """BranchyNet has no temperatures."""
        fitted = None
        if self.trial.group != "BranchyNet":
            fitted = fit_temperatures(self.logits["calibration"], self.task.data.labels("calibration"))
        return ExitPlan(cuts=self.cuts, score=score, temperatures=fitted)

    @property
    def scores(self) -> Sequence[Score]:
        if self.trial.group == "ours":
            return get_args(Score)
        return ("entropy",) if self.trial.group == "BranchyNet" else ("probability",)

    def compose(self, plan: ExitPlan, file: Path) -> Path:
        compose_one_file(self.segments, plan, file, self.task.model.spec, self.task.data.classes)
        return file

    def answers(self, split: Split, plan: ExitPlan, path_ms: np.ndarray) -> Answers:
        return answers_to(self.task.data.labels(split), self.logits[split], plan, tuple(path_ms))

    def paths(self) -> list[Path]:
        """Files that always leave at exit 1, 2 … and at the end; the network itself has one way out."""
        exits, plan = len(self.cuts), self.plan(self.scores[0])
        if not exits:
            return [self.file]
        closed = [never(plan.score, exits)] * exits
        whole = self.compose(plan.model_copy(update={"thresholds": tuple(closed)}), self.folder / "path.onnx")
        files = [Path(shutil.copyfile(whole, whole.with_stem(f"path_{n}"))) for n in range(1, exits + 1)]
        for number, file in enumerate(files):
            set_thresholds(file, [*closed[:number], -1.0, *closed[number + 1 :]])
        return [*files, whole]


@dataclass(frozen=True)
class Chosen:
    """A contender with its thresholds. point: on validation; None where nothing loses so little.

    own: the executor that a peer brings along, instead of ours.
    """

    contender: Contender
    path_ms: np.ndarray
    plan: ExitPlan | None
    point: Point | None
    test: Point | None
    own: Opener | None = None

    def openers(self) -> dict[str, Opener]:
        """How it is executed, by name."""
        if self.own is not None:
            return {"its own executor": self.own}
        if self.point is None:
            return {}
        opened = {"file": partial(RUNTIMES["onnxruntime"]().open, self.contender.file, threads=1)}
        return opened | ({"segments": self.executor} if self.plan else {})

    def executor(self) -> Executor:
        assert self.plan is not None
        return Executor(onnx_segments(self.contender.segments, threads=1), self.plan)


def choose(contender: Contender, path_ms: np.ndarray, full: float) -> Chosen:
    """full: validation accuracy of the network as uploaded."""
    best = Chosen(contender, path_ms, None, None, None)
    for score in contender.scores if contender.cuts else ():
        plan = contender.plan(score)
        frontier = find_frontier(contender.answers("validation", plan, path_ms))
        try:
            point = dataclasses.replace(frontier, full=full).solve(max_drop=MAX_DROP)
        except StepFailed:
            continue
        if best.point is None or point.mean_ms < best.point.mean_ms:
            plan = plan.model_copy(update={"thresholds": point.thresholds})
            test = contender.answers("test", plan, path_ms).of(point.thresholds)
            best = Chosen(contender, path_ms, plan, point, test)
    if not contender.cuts:
        points = [_static(contender, split, path_ms) for split in _SPLITS]
        if points[0].accuracy >= full - MAX_DROP / 100:
            best = Chosen(contender, path_ms, None, points[0], points[1])
    if best.plan is not None:
        contender.compose(best.plan, contender.file)
        known = contender.logits["validation"]
        check_exits(contender.file, said_before(known, contender.task.data), best.plan)
    return best


def in_its_own_way(contender: Contender) -> Chosen:
    """earlyon as it is used: its search for temperatures and thresholds, its executor."""
    wrapper = earlyon_calibrated(contender.folder, contender.task, contender.cuts, MAX_DROP)
    points = []
    for split in _SPLITS:
        accuracy, share = earlyon_policy(wrapper, contender.task, split)
        points.append(Point((), accuracy, 0.0, np.inf, share))
    return Chosen(contender, np.array([np.nan]), None, points[0], points[1], lambda: EarlyonSession(wrapper))


def _static(contender: Contender, split: Split, path_ms: np.ndarray) -> Point:
    right = contender.logits[split][:, 0].argmax(axis=1) == contender.task.data.labels(split)
    return Point((), float(right.mean()), 0.0, float(path_ms[0]), (1.0,))


def time_all(openers: Sequence[Opener], task: Fashion, batch: int = 1) -> np.ndarray:
    """(openers, calls) milliseconds and whether each was disturbed, (openers, calls, 2), from one session."""
    bench = Bench(task.data, RUNTIMES["onnxruntime"](), TARGET.model_copy(update={"batch": batch}), print)
    samples, generator = real_samples(bench, 0), np.random.default_rng(0)
    sittings = []
    with alone(1):
        for sitting in range(SITTINGS):
            first = samples[sitting * ROUNDS % len(samples) :]
            sittings.append(sit(openers, [*first, *samples], 1, generator, ROUNDS // batch + 5, np.inf))
    calls = np.concatenate(sittings).swapaxes(0, 1)
    calls[:, :, 0] *= 1000
    return calls


def mean_ms(calls: np.ndarray) -> float:
    """Of the undisturbed among (calls, 2)."""
    return float(calls[calls[:, 1] == 0, 0].mean() if (calls[:, 1] == 0).any() else calls[:, 0].mean())


def measure_all(folder: Path, trials: Sequence[Trial], limit: int) -> None:
    task = load(folder, limit)
    found = [Contender(t, place_of(folder, t), task) for t in (_uploaded(folder, task), *trials)]
    found = [contender for contender in found if (contender.folder / "about.json").exists()]
    paths = [contender.paths() for contender in found]
    opened = [partial(RUNTIMES["onnxruntime"]().open, file, threads=1) for files in paths for file in files]
    times = iter([mean_ms(calls) for calls in time_all(opened, task)])
    path_ms = [np.array([next(times) for _ in files]) for files in paths]
    full = _static(found[0], "validation", path_ms[0]).accuracy
    chosen = [choose(contender, ms, full) for contender, ms in zip(found, path_ms, strict=True)]
    chosen += [in_its_own_way(one) for one in found if (one.folder / "wrapper.pt").exists()]
    RESULTS.write_text(Report(task, chosen).text())


def _uploaded(folder: Path, task: Fashion) -> Trial:
    """The network as it came, as a contender."""
    trial = Trial("float32", "as uploaded", 0, lambda shop: shop.task.model)
    place = place_of(folder, trial)
    place.mkdir(parents=True, exist_ok=True)
    export_onnx(task.model, place / "model.onnx", task.data.classes)
    (place / "about.json").write_text(json.dumps({"cuts": (), "notes": ()}))
    return trial


class Report:
    """Times what was chosen, and writes it down: one row per name and way of execution, over its seeds."""

    def __init__(self, task: Fashion, chosen: Sequence[Chosen]) -> None:
        self.task, self.chosen = task, chosen
        self.ways = [
            (index, way, opener) for index, one in enumerate(chosen) for way, opener in one.openers().items()
        ]
        self.calls = time_all([opener for *_, opener in self.ways], task)

    def text(self) -> str:
        head = (
            "| Group | Trial | Executed as | Validation % | Test % | Leave at exits and end, % | Mean "
            "| p50 | p99 | Full path |\n|---|---|---|---:|---:|---|---:|---:|---:|---:|\n"
        )
        facts = host_facts()
        return (
            f"{head}{self._rows()}\n\nTimes are multiples of the network as uploaded in ONNX Runtime "
            f"({mean_ms(self.calls[0]):.3f} ms), batch 1, {facts.cpu}, one thread. Thresholds and settings "
            f"(bold: the fastest of its group) by validation, at most {MAX_DROP} points lost; seeds: mean "
            f"(least to most).\n\n{self._batches()}\n"
        )

    def _rows(self) -> str:
        rows = []
        trials = dict.fromkeys((one.contender.trial.group, one.contender.trial.name) for one in self.chosen)
        for group, name in trials:
            these = [i for i, one in enumerate(self.chosen) if self._is(one, group, name)]
            if any(self.chosen[index].point is None for index in these):
                rows.append(f"| {group} | {name} | ONNX | loses more than {MAX_DROP} points | | | | | | |")
            mark = "**" if name == self._best(group) else ""
            for way in dict.fromkeys(way for index, way, _ in self.ways if index in these):
                rows.append(f"| {group} | {mark}{name}{mark} | {way} | {self._figures(these, way)} |")
        return "\n".join(rows)

    def _is(self, one: Chosen, group: str, name: str) -> bool:
        return (one.contender.trial.group, one.contender.trial.name) == (group, name)

    def _best(self, group: str) -> str | None:
        """The name whose seeds all keep the accuracy, and are fastest on validation."""
        of_group = [o for o in self.chosen if o.contender.trial.group == group and o.own is None]
        means = {
            name: np.mean(
                [one.point.mean_ms if one.point else np.inf for one in of_group if self._is(one, group, name)]
            )
            for name in {one.contender.trial.name for one in of_group}
        }
        best = min(means, key=lambda name: means[name])
        return best if np.isfinite(means[best]) else None

    def _figures(self, these: Sequence[int], way: str) -> str:
        rows = [row for row, (index, how, _) in enumerate(self.ways) if index in these and how == way]
        ones = [self.chosen[self.ways[row][0]] for row in rows]
        whole, calls = self.calls[0], self.calls[rows]
        points = [one.point for one in ones if one.point]
        tests = [one.test for one in ones if one.test]
        share = 100 * np.mean([point.share for point in points], axis=0)
        base = self.chosen[0].path_ms[0]
        quantiles = [
            np.quantile(calls[:, :, 0], q, axis=1) / np.quantile(whole[:, 0], q) for q in (0.5, 0.99)
        ]
        return " | ".join(
            [
                _spread([100 * point.accuracy for point in points], 2),
                _spread([100 * point.accuracy for point in tests], 2),
                " / ".join(f"{part:.0f}" for part in share),
                _spread([mean_ms(one) / mean_ms(whole) for one in calls], 3),
                *(_spread(ratios, 3) for ratios in quantiles),
                _spread([one.path_ms[-1] / base for one in ones], 3),
            ]
        )

    def _batches(self) -> str:
        """Ours in batches: who is sure leaves, the others go on."""
        best = [one for one in self.chosen if self._is(one, "ours", self._best("ours") or "")]
        if not best:
            return "None of ours kept the accuracy."
        lines = []
        for batch in BATCHES:
            openers = [self.ways[0][2], *(one.executor for one in best)]
            whole, *ratios = (mean_ms(calls) for calls in time_all(openers, self.task, batch))
            lines.append(
                f"Batch {batch}, ours, undecided rows go on alone: "
                f"{_spread([r / whole for r in ratios], 3)} of the network's {whole:.3f} ms."
            )
        return "\n".join(lines)


def _spread(values: Sequence[float] | np.ndarray, digits: int) -> str:
    many = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{many}"
