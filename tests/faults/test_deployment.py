"""What docker-compose.yml starts, started by hand: there is no container engine to run it with."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from app.broker import broker_binary
from app.doctor import worker_online
from tests.faults.plant import PAREDOWN, Plant, wait_for
from tests.support.postgres import fresh_database
from tests.support.postgres import postgres as postgres
from workers import turns

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
BROKER_PORT, WEB_PORT = 16399, 18520


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_compose_file_keeps_to_the_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_watched_and_no_secret_is_inside() -> None:
    assert set(services()) == {"web", "worker", "worker-gpu", "valkey", "postgres"}
    assert all("healthcheck" in service for service in services().values())
    variables = [pair for service in services().values() for pair in service.get("environment", {}).items()]
    passwords = [value for name, value in variables if "PASSWORD" in name]
    passwords += [found for _, value in variables for found in re.findall(r"://\w+:([^@]+)@", value)]
    assert len(passwords) == 4
    assert all(re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?.*\}", password) for password in passwords)
    assert re.search(r"^USER (?!root)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@pytest.fixture
def plant(postgres: str, tmp_path: Path) -> Iterator[Plant]:
    """The commands of the compose file, with two of its CPU workers."""
    settings = {
        "database_url": fresh_database(postgres).replace("+psycopg", ""),
        "broker_url": f"redis://127.0.0.1:{BROKER_PORT}/0",
        "host": "127.0.0.1",
        "port": WEB_PORT,
    }
    (broker, *options), web = services()["valkey"]["command"], services()["web"]["command"]
    assert broker == "valkey-server"
    with Plant(tmp_path, **settings) as plant:
        plant.start("valkey", [str(broker_binary()), "--port", str(BROKER_PORT), *options])
        plant.start("web", [*PAREDOWN, *web[1:]])
        for name in ("worker 1", "worker 2"):
            plant.start(name, [*PAREDOWN, *services()["worker"]["command"][1:]])
        yield plant


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def test_workers_of_one_host_take_turns() -> None:
    """A container has a /tmp of its own, unless a volume is shared there."""
    shared = [
        {volume.split(":")[1]: volume.split(":")[0] for volume in services()[name]["volumes"]}
        for name in ("worker", "worker-gpu")
    ]
    assert shared[0][str(turns.LOCK_FOLDER)] == shared[1][str(turns.LOCK_FOLDER)]


def test_two_workers_on_postgresql_and_redis_one_killed(plant: Plant) -> None:
    plant.wait_until_imported()
    job_id, run_id = plant.queue_run(epochs=20)
    other_id, _ = plant.queue_run(epochs=1000, seed=1)
    for each in (job_id, other_id):
        plant.wait_until_training(each)
    assert worker_online(plant.settings)
    wait_for(lambda: answers(f"http://127.0.0.1:{WEB_PORT}/api/health"), "the web's answer")
    first = plant.job(job_id)
    assert first.worker != plant.job(other_id).worker, "both jobs on one worker"
    plant.cancel(other_id)
    wait_for(lambda: plant.job(other_id).state == "cancelled", "the end of the other worker's job")

    # One process waits for the next job; who has a second one works.
    plant.kill(max(("worker 1", "worker 2"), key=lambda name: len(plant.roots[name].children())))
    took = plant.wait_until_training(job_id)
    print(f"the other worker went on after {took:.1f} s")
    assert plant.wait_until_ended(job_id).state == "done"
    assert plant.job(job_id).worker != first.worker
    assert [stage.method for stage in plant.run(run_id).stages] == [None, "structured_pruning", "fine_tuning"]
    assert len(re.findall(r"stage 1 \w+ carried out", plant.log(job_id))) == 1
