"""Paredown's processes on a folder of their own, with a tiny net, tiny pictures and ways to kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from db import datasets, jobs, models_, runs
from db.artifacts import Artifacts
from db.models import Job, Run
from db.session import engine_for, migrate, reading, transaction
from db.settings import Settings
from workers.graph.resnets import RESNETS
from workers.queue import wake

#: For whatever must happen; far above what it takes, since other tests share the cores.
PATIENCE_SECONDS = 90.0
#: What the product promises, on cores of its own: a job moves again after a kill; Ctrl-C ends everything.
MOVES_SECONDS, ENDS_SECONDS = 20.0, 5.0
PAREDOWN = (sys.executable, "-m", "app.cli")
#: Command lines of the parts, as the process table shows them.
PARTS = {"job": "workers.job", "worker": "app.cli worker", "broker": "unixsocket:", "web": "app.main"}


def shared(seconds: float) -> float:
    """As long as it may take where so many others want the cores too."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_for(happened: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Seconds it took; fails with `what` when it does not happen."""
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - started


class Plant:
    """Rows and processes below one folder. settings: other than the default of one machine alone."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(data=folder / "data", **{"port": 18501, **settings})
        self.settings.data.mkdir()
        given = self.settings.model_dump(mode="json", exclude_unset=True)
        self.environment = os.environ | {f"PAREDOWN_{name.upper()}": str(v) for name, v in given.items()}
        self.environment["OMP_NUM_THREADS"] = "1"
        migrate(self.settings.database)
        self.seen: dict[int, psutil.Process] = {}
        self.roots: dict[str, psutil.Popen] = {}
        self.model, self.dataset = self._import(folder)

    def start(self, name: str = "supervisor", command: Sequence[str] = (*PAREDOWN, "up")) -> None:
        """Run a command, known here by that name."""
        self.roots[name] = psutil.Popen(command, env=self.environment, stdout=subprocess.DEVNULL)

    def __enter__(self) -> "Plant":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nothing of it may be there afterwards, whatever was killed meanwhile."""
        try:
            self.interrupt()
        finally:
            for process in self.seen.values():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            engine_for(self.settings.database).dispose()

    def interrupt(self) -> float:
        """Ctrl-C; seconds until nothing of it is left."""
        self.look()
        for root in self.roots.values():
            with suppress(psutil.NoSuchProcess):
                root.send_signal(signal.SIGINT)
        started = time.monotonic()
        left = psutil.wait_procs(self.seen.values(), timeout=shared(ENDS_SECONDS))[1]
        assert left == [], f"still there {time.monotonic() - started:.0f} s after Ctrl-C"
        return time.monotonic() - started

    def look(self) -> list[psutil.Process]:
        """All processes of the plant that run now; remembered."""
        found: list[psutil.Process] = []
        for root in self.roots.values():
            with suppress(psutil.NoSuchProcess):
                found += [root, *root.children(recursive=True)]
        self.seen |= {process.pid: process for process in found}
        return found

    def part(self, name: str) -> list[psutil.Process]:
        """Oldest first: of two processes for jobs, the one that works."""
        if name in self.roots:
            return [self.roots[name]]
        found = []
        for process in self.look():
            try:
                if PARTS[name] in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return sorted(found, key=lambda process: process.create_time())

    def kill(self, name: str) -> None:
        """`kill -9`; a supervisor is started again, as a person or systemd would do."""
        self.look()
        victim = self.part(name)[0]
        victim.kill()
        if name == "supervisor":
            victim.wait(10)
            gone = [process for process in self.seen.values() if process != victim]
            assert psutil.wait_procs(gone, timeout=5)[1] == [], "left behind by a killed supervisor"
            self.start()

    def queue_run(self, *, epochs: int, seed: int = 0, **request: str) -> tuple[str, str]:
        """(job, run) of one more recipe, without epochs it only prunes; other seeds share no stage."""
        steps: list[dict[str, Any]] = [{"method": "structured_pruning", "amount": 0.3, "recovery": "none"}]
        if epochs:
            steps.append({"method": "fine_tuning", "epochs": epochs, "batch_size": 16})
        with transaction(self.settings.database) as session:
            experiment = runs.experiment_of(session, self.model, self.dataset)
            name = f"Seed {seed}"
            run = runs.add(session, experiment, name=name, recipe={"name": name, "steps": steps}, seed=seed)
            job = jobs.add(session, "run", run.id, queue="cpu", request=request)
        wake(job.id, broker=self.settings.broker)
        return job.id, run.id

    def cancel(self, job_id: str) -> None:
        with transaction(self.settings.database) as session:
            jobs.request_cancel(session, job_id)

    def job(self, job_id: str) -> Job:
        with reading(self.settings.database) as session:
            return session.get_one(Job, job_id)

    def run(self, run_id: str) -> Run:
        with reading(self.settings.database) as session:
            run = runs.whole(session, run_id)
        assert run is not None
        return run

    def epochs(self, job_id: str) -> int:
        with reading(self.settings.database) as session:
            return jobs.count_points(session, job_id)

    def progress(self, job_id: str, run_id: str) -> tuple[int, int, bool, str]:
        """Epochs, stages, whether it has ended, and what its process says of the work in hand."""
        job = self.job(job_id)
        working = job.state == "running" and job.text != "Starting"  # the latter is said by its worker
        told = f"{job.attempt}: {job.text} {job.share}" if working else ""
        return self.epochs(job_id), len(self.run(run_id).stages), job.ended_at is not None, told

    def moved_on(self, job_id: str, run_id: str, before: tuple[int, int, bool, str]) -> bool:
        now = self.progress(job_id, run_id)
        return now[2] or now[:2] != before[:2] or now[3] not in ("", before[3])

    def wait_until_training(self, job_id: str, more: int = 2, seconds: float = PATIENCE_SECONDS) -> float:
        """Until that many epochs more than now are kept, or the job has ended."""
        wanted = self.epochs(job_id) + more

        def further() -> bool:
            return self.epochs(job_id) >= wanted or self.job(job_id).ended_at is not None

        return wait_for(further, f"{more} epochs more", seconds)

    def wait_until_ended(self, job_id: str) -> Job:
        wait_for(lambda: self.job(job_id).ended_at is not None, "the job's end", shared(2 * PATIENCE_SECONDS))
        return self.job(job_id)

    def wait_until_imported(self) -> None:
        def ready() -> bool:
            with reading(self.settings.database) as session:
                return not jobs.active(session, ["import"])

        wait_for(ready, "the imports' end")

    def log(self, job_id: str) -> str:
        return self.settings.job_log(job_id).read_text()

    def _import(self, folder: Path) -> tuple[str, str]:
        """Rows of a model and a dataset, and the jobs that check them."""
        weights, pictures = folder / "net.pt", folder / "pictures.npz"
        torch.save(RESNETS["cifar_resnet8"](num_classes=3, in_channels=1).state_dict(), weights)
        generator = np.random.default_rng(0)
        labels = np.arange(600) % 3
        images = generator.integers(0, 80, (600, 12, 12), dtype=np.uint8)
        images[np.arange(600), labels * 4] += 150
        np.savez(pictures, images=images, labels=labels)
        store = Artifacts(self.settings.artifacts)
        with transaction(self.settings.database) as session:
            model = models_.add(session, name="net.pt", upload_sha256=store.add(weights))
            dataset = datasets.add(
                session, name="pictures", source="pictures.npz", upload_sha256=store.add(pictures)
            )
            asked = {"noun": "model", "architecture": "cifar_resnet8", "size": 12}
            jobs.add(session, "import", model.id, queue="cpu", request=asked)
            jobs.add(session, "import", dataset.id, queue="cpu", request={"noun": "dataset"})
        return model.id, dataset.id
