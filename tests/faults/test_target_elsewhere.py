"""A machine that shares PostgreSQL and Redis with the others, and no folder: a run is measured there.

Where the system allows mount namespaces, the second worker cannot even see the first one's folder, and has
another machine id, so another fingerprint.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from app.broker import broker_binary
from db import jobs, variants, workers
from db.models import Job, Measurement
from db.session import reading
from tests.faults.plant import PAREDOWN, Plant, wait_for
from tests.faults.test_deployment import answers
from tests.support.exits import do
from tests.support.postgres import fresh_database
from tests.support.postgres import postgres as postgres

BROKER_PORT, WEB_PORT = 16401, 18560
WEB = f"http://127.0.0.1:{WEB_PORT}"
#: What the issue promises.
APPEARS_SECONDS = 10.0
NAME = "pi5"


def namespaces() -> bool:
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def plant(postgres: str, tmp_path: Path) -> Iterator[Plant]:
    """Web and one CPU worker on one folder."""
    settings = {
        "database_url": fresh_database(postgres).replace("+psycopg", ""),
        "broker_url": f"redis://127.0.0.1:{BROKER_PORT}/0",
        "port": WEB_PORT,
    }
    with Plant(tmp_path, **settings) as plant:
        plant.start("valkey", [str(broker_binary()), "--port", str(BROKER_PORT), "--save", ""])
        plant.start("web", [*PAREDOWN, "web"])
        with reading(plant.settings.database) as session:
            imports = [job.id for job in jobs.active(session, ["import"])]
        for job_id in imports:  # here, since every job of a worker costs a process that imports torch
            do(plant.settings, job_id)
        plant.start("cpu", [*PAREDOWN, "worker", "--queues", "cpu"])
        wait_for(lambda: answers(f"{WEB}/api/health"), "the web's answer")
        yield plant


def elsewhere(plant: Plant, folder: Path) -> list[str]:
    """The command of the machine, whose own folder is this."""
    worker = [
        "env",
        f"PAREDOWN_DATA={folder}",
        f"PAREDOWN_WEB_URL={WEB}/",
        *PAREDOWN,
        "worker",
        "--target",
        NAME,
    ]
    if not namespaces():
        return worker
    identity = folder.with_suffix(".id")
    identity.write_text("another machine\n")
    apart = f"mount --bind {identity} /etc/machine-id && mount -t tmpfs none {plant.settings.data} && exec "
    return ["unshare", "--mount", "sh", "-c", apart + " ".join(worker)]


def known(plant: Plant) -> workers.NamedTarget | None:
    with reading(plant.settings.database) as session:
        return next(iter(workers.targets(session)), None)


def online(plant: Plant) -> bool:
    """As the page hears it."""
    with urlopen(f"{WEB}/api/state/targets", timeout=5) as answer:
        answer.read()
    target = known(plant)
    return target is not None and target.online


def asked(plant: Plant, run_id: str) -> Job | None:
    with reading(plant.settings.database) as session:
        return next(iter(jobs.measuring(session, run_id)), None)


def said(run_id: str, job_id: str) -> str:
    """By the page of the run."""
    with urlopen(f"{WEB}/api/state/runs/{run_id}", timeout=5) as answer:
        return str(json.load(answer)["jobs"].get(job_id, {}).get("text", ""))


def numbers(plant: Plant, run_id: str, name: str) -> list[dict[tuple[str, str, str], float | None]]:
    """Per stage by (name, split, the target's name)."""

    def taken(m: Measurement) -> tuple[str, str, str]:
        return m.name, m.split or "", (m.target or {}).get("name", "")

    stages = [stage.own.measurements for stage in plant.run(run_id).stages]
    return [{taken(m): m.value for m in found if m.name == name and m.target} for found in stages]


def _kill_and_start_again(plant: Plant, run_id: str, job_id: str, command: list[str]) -> None:
    """In the middle of it: the job waits for this machine, and the other worker leaves it alone."""
    plant.kill(NAME)
    wait_for(lambda: "offline" in said(run_id, job_id), "that it is said to wait")
    assert said(run_id, job_id) == f"Waits for target {NAME}, which is offline"
    waiting = plant.job(job_id)
    assert (waiting.state, waiting.queue) == ("queued", f"target.{NAME}")
    plant.start(NAME, command)


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_is_measured_on_a_machine_that_shares_no_folder(
    plant: Plant, tmp_path: Path, killed: bool
) -> None:
    folder = tmp_path / "far"
    command = elsewhere(plant, folder)
    plant.start(NAME, command)
    took = wait_for(lambda: online(plant), "the machine in the dashboard")
    print(f"in the dashboard after {took:.1f} s")
    assert took < APPEARS_SECONDS
    assert not list((folder / "fetched").glob("*/*"))
    wait_for(lambda: (t := known(plant)) and t.worker.facts, "what the machine is")

    job_id, run_id = plant.queue_run(epochs=0, target=NAME, runtime="onnxruntime")
    assert plant.wait_until_ended(job_id).state == "done"
    wait_for(lambda: (j := asked(plant, run_id)) and j.state == "running", "its start there")
    job = asked(plant, run_id)
    assert job is not None
    if killed:
        _kill_and_start_again(plant, run_id, job.id, command)
    ended = plant.wait_until_ended(job.id)
    assert ended.state == "done", ended.error

    target = known(plant)
    assert target is not None
    assert ended.worker == target.worker.id
    assert plant.job(job_id).worker != target.worker.id
    accuracies = numbers(plant, run_id, "accuracy")
    assert len(accuracies) == 2
    for found in accuracies:
        for split in ("validation", "test"):
            assert found["accuracy", split, NAME] == found["accuracy", split, ""]
    for found in numbers(plant, run_id, "latency_ratio"):
        assert found["latency_ratio", "validation", NAME] is not None
    assert all(found["latency_p50", "validation", NAME] for found in numbers(plant, run_id, "latency_p50"))
    hosts = {
        m.target.get("name", ""): m.target["host"]
        for stage in plant.run(run_id).stages
        for m in stage.own.measurements
        if m.target
    }
    assert hosts[NAME] == target.worker.facts["host"]
    assert (hosts[NAME] != hosts[""]) == namespaces()
    with reading(plant.settings.database) as session:
        rows = variants.comparison(session, plant.run(run_id).experiment_id)
    assert sorted(json.loads(row["target"]).get("name", "") for row in rows) == ["", "", NAME, NAME]

    files = list((folder / "fetched").glob("*/*"))
    assert len(files) == 3  # the pictures and two exported files
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() == file.name for file in files)
    assert not list(folder.rglob("*.partial"))
