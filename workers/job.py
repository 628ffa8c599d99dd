"""The process of one job: `python -m workers.job JOB_ID ATTEMPT` does that job and ends;
`python -m workers.job WORKER` imports everything first and waits for the two words on standard input.

What happens is told as rows, errors too; what is printed, tracebacks included, goes into the job's log.
"""

import importlib
import logging
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

from db import jobs, workers
from db.models import Job
from db.session import reading, transaction
from db.settings import Settings
from workers.assignment import Assignment, GaveWay, NoLongerOurs
from workers.errors import ParedownError
from workers.turns import training_turn

#: kind -> the module with its `do(assignment)`.
KINDS = {
    "import": "workers.work.importing",
    "predictor": "workers.work.predicting",
    "run": "workers.work.running",
    "measure": "workers.work.measuring",
    "thresholds": "workers.work.thresholds",
    "profile": "workers.work.profile",
    "throughput": "workers.work.throughput",
    "sensitivity": "workers.work.sensitivity",
    "blocks": "workers.work.blocks",
}
log = logging.getLogger(__name__)


def main() -> None:
    words = sys.argv[1:] if len(sys.argv) == 3 else _wait(sys.argv[1])
    if not words:
        return  # the worker ended
    settings = Settings()
    with reading(settings.database) as session:
        job = session.get_one(Job, words[0])
    _print_into(settings.job_log(job.id))
    folder = settings.data.resolve() / "jobs" / job.id
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)  # what is left there after a kill is removed by the watcher
    perform(Assignment(job, int(words[1]), settings, folder))


def perform(assignment: Assignment) -> None:
    """Do the job and tell its end."""
    job = assignment.job
    log.info("%s %s, attempt %d", job.kind, job.id, assignment.attempt)
    threading.Thread(target=assignment.write_regularly, daemon=True).start()
    error: dict[str, str] | None = None
    try:
        _work(job.kind).do(assignment)
        assignment.write()
    except NoLongerOurs:
        log.warning("The job is no longer ours.")
        return
    except GaveWay:
        with transaction(assignment.settings.database) as session:
            jobs.release(session, job.id, assignment.attempt)
        log.info("gave way")
        return
    except ParedownError as problem:
        log.exception("Failed")
        error = {"where": problem.where, "what": problem.what, "fix": problem.fix}
    except Exception as problem:  # any defect becomes a sentence on the screen
        log.exception("Failed")
        error = {
            "where": f"{job.kind} job",
            "what": f"{type(problem).__name__}: {str(problem)[:300]}.",
            "fix": "This is a defect of Paredown: report it with the job's log. Finished stages are kept.",
        }
    with transaction(assignment.settings.database) as session:
        jobs.end(session, job.id, assignment.attempt, "failed" if error else "done", error)
    log.info("failed" if error else "done")


def _wait(worker: str) -> list[str]:
    """Import, say what this machine is, then wait for the id; empty when the worker ended.

    Importing torch is seconds of work for a core: like a batch of training, it stays out of measurements.
    """
    with training_turn():
        for kind in KINDS:
            _work(kind)
        from workers.host import host_facts
        from workers.places import runtime_facts

        facts = host_facts().model_dump(mode="json")
        facts["runtimes"] = [runtime.model_dump(mode="json") for runtime in runtime_facts()]
    with transaction(Settings().database) as session:
        workers.describe(session, worker, facts)
    return sys.stdin.readline().split()


def _work(kind: str) -> ModuleType:
    return importlib.import_module(KINDS[kind])


def _print_into(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for noisy in ("alembic", "torch", "torch.onnx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # all is told; unloading torch would keep the next job waiting for seconds
