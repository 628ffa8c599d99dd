"""Databases as they look after days of work, for pages that are drawn without a worker.

    python -m tests.support.experiments DATA_FOLDER [VARIANTS]

fills the database of `DATA_FOLDER` with the sample experiment, or with one of that many variants.
"""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from db import jobs, models_, runs
from db import session as database
from db.models import (
    DEFAULT_PERSON,
    DEFAULT_PROJECT,
    Dataset,
    Experiment,
    Job,
    Measurement,
    Point,
    Run,
    Stage,
    Variant,
    Worker,
    new_id,
)

LAPTOP = {"host": "3f2a91bc", "device": "cpu", "runtime": "onnxruntime", "threads": 1, "batch": 1}
SERVER = {"host": "b81d07e4", "device": "cpu", "runtime": "onnxruntime", "threads": 4, "batch": 8}
PRUNED = {0.3: (0.951, 0.74), 0.5: (0.946, 0.52), 0.7: (0.921, 0.34)}
SAMPLES = 1200
ACCURACY, LATENCY_MS, SIZE, MACS, PARAMETERS = 0.9525, 3.12, 1_740_000, 41_200_000, 431_000


def fill(url: str) -> str:
    """Six runs: the baseline, three amounts, one failed, one running. Returns the experiment's id."""
    database.migrate(url)
    with database.transaction(url) as session:
        experiment = _experiment(session)
        baseline = runs.add(session, experiment, name="Baseline", recipe=_recipe("Baseline"))
        runs.save_stage(session, baseline.id, _stage(0), _numbers(ACCURACY, 1.0))
        _job(session, baseline, state="done", age_s=7200)
        for amount, (accuracy, ratio) in PRUNED.items():
            _pruned(session, experiment, amount, accuracy, ratio)
        recipe = _recipe("Pruned by 90 %", 0.9)
        failed = runs.add(session, experiment, name="Pruned by 90 %", recipe=recipe)
        runs.save_stage(session, failed.id, _stage(0), _numbers(ACCURACY, 1.0, None))
        _job(session, failed, state="failed", age_s=900)
        recipe = _recipe("Pruned by 40 %", 0.4)
        running = runs.add(session, experiment, name="Pruned by 40 %", recipe=recipe)
        runs.save_stage(session, running.id, _stage(0), _numbers(ACCURACY, 1.0, None))
        _job(session, running, state="running", age_s=60)
        session.add(
            Worker(id="worker-1", queues=["cpu"], device="cpu", facts=_facts(), seen_at=time.time() + 1e6)
        )
        return experiment.id


def fill_many(url: str, variants: int) -> str:
    """One experiment with that many variants, one step each, on one target."""
    database.migrate(url)
    draw = random.Random(0)
    with database.transaction(url) as session:
        experiment = _experiment(session)
        rows: dict[type, list[dict[str, Any]]] = {Run: [], Stage: [], Variant: [], Measurement: []}
        for number in range(variants):
            ratio = 1.0 if number == 0 else draw.uniform(0.08, 1.05)
            accuracy = ACCURACY - 0.3 * (1 - min(ratio, 1)) ** 3 - abs(draw.gauss(0, 0.02)) * (number > 0)
            run, stage, variant = (new_id() for _ in range(3))
            recipe = _recipe(f"Trial {number}", 0.5)
            noun = {
                "project_id": DEFAULT_PROJECT,
                "created_by": DEFAULT_PERSON,
                "created_at": time.time() + number,
            }
            rows[Run].append(
                noun
                | {
                    "id": run,
                    "experiment_id": experiment.id,
                    "name": f"Trial {number}",
                    "recipe": recipe,
                    "seed": 0,
                    "warnings": [],
                }
            )
            rows[Stage].append(
                _stage(int(number > 0), draw.choice(("structured_pruning", "fine_tuning")), 0.5)
                | {"id": stage, "run_id": run}
            )
            rows[Variant].append({"id": variant, "stage_id": stage, "thresholds": None})
            rows[Measurement] += [m | {"variant_id": variant} for m in _numbers(accuracy, ratio)][:-4]
        for table, values in rows.items():
            session.execute(insert(table), values)
        return experiment.id


def _experiment(session: Session) -> Experiment:
    model = models_.add(session, name="resnet20-digits", upload_sha256="a" * 64)
    model.file_sha256, model.file_name = "b" * 64, "model.pt2"
    model.spec = {"name": "resnet20-digits", "architecture": "resnet20", "classes": 10}
    model.facts = {"parameters": PARAMETERS, "macs": MACS, "size_bytes": SIZE}
    dataset = Dataset(name="digits", source="sample", sha256="c" * 64, facts={"classes": 10})
    session.add(dataset)
    session.flush()
    experiment = runs.experiment_of(session, model.id, dataset.id)
    experiment.goal = {"max_drop_points": 1.0, "max_latency_ratio": 0.6}
    return experiment


def _pruned(session: Session, experiment: Experiment, amount: float, accuracy: float, ratio: float) -> None:
    name = f"Pruned by {amount:.0%}".replace("%", " %")
    run = runs.add(session, experiment, name=name, recipe=_recipe(name, amount))
    runs.save_stage(session, run.id, _stage(0), _numbers(ACCURACY, 1.0))
    pruned = _stage(1, "structured_pruning", amount)
    runs.save_stage(session, run.id, pruned, _numbers(accuracy - amount * 0.06, ratio * 1.004, 1 - amount))
    runs.save_stage(session, run.id, _stage(2, "fine_tuning"), _numbers(accuracy, ratio, 1 - amount))
    job = _job(session, run, state="done", age_s=3600)
    session.add_all(
        Point(
            job_id=job.id,
            stage=2,
            epoch=e,
            values={"epoch": e, "loss": 0.4 / e, "accuracy": accuracy - 0.02 / e},
        )
        for e in range(1, 6)
    )


def _recipe(name: str, amount: float | None = None) -> dict[str, Any]:
    steps = [{"method": "structured_pruning", "amount": amount}, {"method": "fine_tuning", "epochs": 5}]
    return {"name": name, "steps": [] if amount is None else steps}


def _stage(index: int, method: str | None = None, amount: float | None = None) -> dict[str, Any]:
    return {
        "index": index,
        "method": method if index else None,
        "settings": {} if amount is None else {"amount": amount},
        "key": new_id(),
        "seconds": 12.5 * index,
        "cached": index == 0,
        "notes": ["Removed 51.2% of the multiply-accumulates (asked: at least 50%)."] if amount else [],
        "file_sha256": "d" * 64,
        "archive_sha256": None,
    }


def _job(session: Session, run: Run, *, state: str, age_s: float) -> Job:
    job = jobs.add(session, "run", run.id, queue="cpu", request={})
    job.state, job.created_at = state, time.time() - age_s
    run.created_at = job.created_at
    if state == "running":
        job.stage, job.share, job.text, job.worker = 1, 0.42, "removing 34% of the channels", "worker-1"
        job.lease_until, job.started_at, job.attempt = time.time() + 1e6, time.time() - 50, 1
    if state == "failed":
        job.worker, job.attempt, job.stage = "worker-1", 1, 1
        job.error = {
            "where": "structured_pruning",
            "what": "no layer can become narrower at round_to=64.",
            "fix": "Lower round_to, or leave this step out.",
        }
    return job


def _numbers(accuracy: float, ratio: float, kept: float | None = 1.0) -> list[dict[str, Any]]:
    """kept: share of the weights that is left; None leaves out what is timed at the end of a run."""
    left = 1.0 if kept is None else kept
    found = [*_accuracies(accuracy)]
    for name, value, unit in (
        ("size", SIZE * left, "B"),
        ("macs", MACS * left, "MAC"),
        ("parameters", PARAMETERS * left, "weights"),
    ):
        found.append(_number(name, value, unit))
    for target, times in ((LAPTOP, 1.0), (SERVER, 2.6)) if kept is not None else ():
        latency_ms = LATENCY_MS * ratio * times
        for name, value, unit in (
            ("latency_p50", latency_ms, "ms"),
            ("latency_p90", latency_ms * 1.12, "ms"),
            ("latency_p99", latency_ms * 1.4, "ms"),
            ("latency_ratio", ratio, "x"),
        ):
            spread = 0.0 if ratio == 1 and name == "latency_ratio" else 0.012 * value
            found.append(
                _number(name, value, unit)
                | {
                    "low": value - spread,
                    "high": value + spread,
                    "split": "validation",
                    "samples": 1600,
                    "target": target,
                }
            )
    return found


def _accuracies(accuracy: float) -> Iterator[dict[str, Any]]:
    for split, value in (("validation", accuracy), ("test", accuracy - 0.004)):
        spread = 1.96 * (value * (1 - value) / SAMPLES) ** 0.5
        yield _number("accuracy", value, "share") | {
            "better": "higher",
            "low": value - spread,
            "high": value + spread,
            "split": split,
            "samples": SAMPLES,
        }


def _number(name: str, value: float, unit: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "low": None,
        "high": None,
        "unit": unit,
        "better": "lower",
        "split": None,
        "samples": None,
        "target": None,
        "marks": [],
    }


def _facts() -> dict[str, Any]:
    return {
        "host": LAPTOP["host"],
        "cpu": "AMD EPYC 7763",
        "physical_cores": 2,
        "logical_cores": 4,
        "instructions": "AVX2",
        "vnni": False,
        "memory_bytes": 8 << 30,
        "system": "Linux 6.1 x86_64",
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    address = f"sqlite:///{folder.resolve()}/paredown.db"
    print(fill(address) if len(sys.argv) == 2 else fill_many(address, int(sys.argv[2])))
