"""`paredown demo`: the sample through the real queue and worker, and what came out as a table.

Rows that an earlier start left are taken up: a second start shows the same results at once.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterable
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.queueing import queue_runs
from app.session import artifacts, reading, settings, writing
from app.supervisor import Supervisor
from app.terminal import err, out
from db import datasets, jobs, models_, runs
from db.models import ENDED, Job, Measurement, Run
from workers.errors import ParedownError
from workers.queue import wake

MODEL, DATASET = "Sample digits net", "sample"
AMOUNTS = (0.5, 0.7, 0.85)
EPOCHS = 3
#: The file that is handed out is the fastest that loses at most this many points on validation.
MAX_DROP_POINTS = 1.0
WEB_SECONDS = 60


def run_demo(*, serve_on: bool) -> None:
    """Raises ParedownError when a job failed. Stops early at Ctrl-C."""
    with Supervisor(settings()) as supervisor, _Watch(supervisor) as watch:
        out.print(f"Dashboard: {supervisor.address}  (logs: {supervisor.settings.logs})")
        model_id, dataset_id = _imported()
        watch.until_done([model_id, dataset_id])
        if not supervisor.stopping:
            watch.until_done(_queued(model_id, dataset_id))
        if supervisor.stopping:
            return
        watch.close()
        with reading() as session:
            finished = [runs.whole(session, run.id) for run in reversed(_runs_of(model_id, dataset_id))]
        _show([run for run in finished if run is not None and run.stages], supervisor)
        if serve_on:
            out.print("Serving on; Ctrl-C ends everything.")
            supervisor.run()


def recipes() -> list[dict[str, Any]]:
    """Int8 alone, then pruned by more and more, with int8 on top."""
    int8 = {"method": "quantization", "max_drop": MAX_DROP_POINTS}
    return [
        {"name": "Int8", "steps": [int8]},
        {"name": "Pruned 50 %", "steps": [_pruned(0.5)]},
        *(
            {"name": f"Pruned {100 * amount:.0f} %, int8", "steps": [_pruned(amount), int8]}
            for amount in AMOUNTS
        ),
    ]


def _pruned(amount: float) -> dict[str, Any]:
    recovery = {"recovery_epochs": EPOCHS, "recovery_learning_rate": 0.05}
    return {"method": "structured_pruning", "amount": amount, **recovery}


def _imported() -> tuple[str, str]:
    """Ids of the sample's model and dataset, found or queued for import."""
    with writing() as session:
        model = next((m for m in models_.all_of(session) if m.name == MODEL), None)
        dataset = next((d for d in datasets.all_of(session) if d.source == DATASET), None)
        if model is None:
            model = models_.add(session, name=MODEL, upload_sha256="")
            jobs.add(session, "import", model.id, queue="cpu", request={"noun": "sample_model"})
        if dataset is None:
            dataset = datasets.add(session, name="Sample digits", source=DATASET, upload_sha256=None)
            jobs.add(session, "import", dataset.id, queue="cpu", request={"noun": "dataset"})
        return model.id, dataset.id


def _queued(model_id: str, dataset_id: str) -> list[str]:
    """Ids of the demo's runs; those that are not there are queued."""
    there = {run.name for run in _runs_of(model_id, dataset_id)}
    missing = [recipe for recipe in recipes() if recipe["name"] not in there]
    if missing:
        queue_runs(model_id, dataset_id, missing)
    names = {"Baseline", *(recipe["name"] for recipe in recipes())}
    return [run.id for run in reversed(_runs_of(model_id, dataset_id)) if run.name in names]


def _runs_of(model_id: str, dataset_id: str) -> list[Run]:
    """Newest first."""
    with reading() as session:
        return [
            run
            for run in runs.all_of(session)
            if (run.experiment.model_id, run.experiment.dataset_id) == (model_id, dataset_id)
        ]


class _Watch:
    """Waits for jobs while the supervisor tends its processes; a bar per job in a terminal, else lines."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=err, transient=True)
        self.tasks: dict[str, TaskID] = {}
        self.ended: set[str] = set()

    def __enter__(self) -> "_Watch":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.progress.stop()

    def until_done(self, subject_ids: Iterable[str]) -> None:
        """Raises ParedownError with what a failed job said."""
        wanted = list(subject_ids)
        with reading() as session:
            broken = [job for job in jobs.latest(session, wanted).values() if job.state == "failed"]
        for job in broken:  # of an earlier start
            with writing() as session:
                jobs.retry(session, job.id)
            wake(job.id)
        while not self.supervisor.stopping:
            self.supervisor.tend()
            with reading() as session:
                found = list(jobs.latest(session, wanted).values())
            for job in found:
                self._show(job)
            if all(job.state in ENDED for job in found):
                return
            time.sleep(0.25)

    def _show(self, job: Job) -> None:
        name = _title(job)
        if job.state == "failed":
            error = job.error or {}
            raise ParedownError(name, error.get("what", "failed."), error.get("fix", ""))
        if job.id not in self.tasks:
            self.tasks[job.id] = self.progress.add_task(name, total=1.0)
        text = job.text or "Waiting for a worker"
        self.progress.update(self.tasks[job.id], description=f"{name}: {text}", completed=job.share)
        if job.state in ENDED and job.id not in self.ended:
            self.ended.add(job.id)
            self.progress.update(self.tasks[job.id], visible=False)
            took = (job.ended_at or 0) - (job.started_at or 0)
            self.progress.console.print(f"{name}: {job.state} in {took:.1f} s")


def _title(job: Job) -> str:
    if job.kind == "import":
        return "Sample data" if job.request.get("noun") == "dataset" else "Sample model"
    with reading() as session:
        return session.get_one(Run, job.subject_id).name


def _show(finished: list[Run], supervisor: Supervisor) -> None:
    table = Table(header_style="bold")
    table.add_column("Run")
    for heading in ("Accuracy % (validation)", "(test)", "p50 ms", "Latency", "Size kB", "MACs M"):
        table.add_column(heading, justify="right")
    for run in finished:
        table.add_row(run.name, *_cells(run))
    out.print(table)
    best = _best(finished)
    file = settings().data / "demo" / f"{re.sub(r'[^a-z0-9]+', '-', best.name.lower()).strip('-')}.onnx"
    file.parent.mkdir(exist_ok=True)
    shutil.copyfile(artifacts().path(best.stages[-1].file_sha256), file)
    out.print(f"Fastest that loses at most {MAX_DROP_POINTS:g} point on validation: {best.name}")
    out.print(f"Exported: {file}", markup=False, soft_wrap=True)
    deadline = time.monotonic() + WEB_SECONDS
    while not supervisor.web_answers() and time.monotonic() < deadline and not supervisor.stopping:
        supervisor.tend()
        time.sleep(0.2)
    out.print(f"Dashboard: {supervisor.address}", soft_wrap=True)


def _number(run: Run, name: str, split: str | None = None) -> Measurement | None:
    taken = run.stages[-1].own.measurements
    return next((m for m in taken if m.name == name and split in (None, m.split)), None)


def _best(finished: list[Run]) -> Run:
    accuracy: Callable[[Run], float] = lambda run: _value(_number(run, "accuracy", "validation"))  # noqa: E731
    floor = accuracy(finished[0]) - MAX_DROP_POINTS / 100
    good = [run for run in finished if accuracy(run) >= floor]
    return min(good, key=lambda run: _value(_number(run, "latency_ratio"), 1.0))


def _value(measurement: Measurement | None, otherwise: float = 0.0) -> float:
    return otherwise if measurement is None or measurement.value is None else measurement.value


def _cells(run: Run) -> list[str]:
    ratio = _value(_number(run, "latency_ratio"), 1.0)
    return [
        f"{100 * _value(_number(run, 'accuracy', 'validation')):.1f}",
        f"{100 * _value(_number(run, 'accuracy', 'test')):.1f}",
        f"{_value(_number(run, 'latency_p50')):.3f}",
        f"{1 / ratio:.2f}x faster" if len(run.stages) > 1 else "1x",
        f"{_value(_number(run, 'size')) / 1e3:.0f}",
        f"{_value(_number(run, 'macs')) / 1e6:.2f}",
    ]
