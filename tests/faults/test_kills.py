"""`kill -9` of every part in mid-training: the job goes on from its checkpoint and ends `done`."""

import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from tests.faults.plant import MOVES_SECONDS, Plant, shared, wait_for


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with Plant(tmp_path_factory.mktemp("plant")) as plant:
        plant.start()
        plant.wait_until_imported()  # no page offers a model before that
        yield plant


def check_done(plant: Plant, job_id: str, run_id: str) -> None:
    job = plant.wait_until_ended(job_id)
    assert (job.state, job.error) == ("done", None)
    carried_out = re.findall(r"stage \d+ (\w+) carried out", plant.log(job_id))
    assert max(Counter(carried_out).values()) == 1, "a finished stage was done again"
    stages = plant.run(run_id).stages
    assert [stage.method for stage in stages] == [None, "structured_pruning", "fine_tuning"]
    names = [m.name for m in stages[-1].variants[0].measurements]
    assert names.count("latency_ratio") == 1
    assert names.count("size") == 1
    assert not list((plant.settings.data / "stages").glob("*.partial"))
    wait_for(lambda: not list((plant.settings.data / "jobs").iterdir()), "its folder removed")


def test_each_part_killed_in_mid_training(plant: Plant) -> None:
    job_id, run_id = plant.queue_run(epochs=40)
    plant.wait_until_training(job_id)
    for part in ("broker", "job", "worker", "supervisor", "web"):
        before = plant.job(job_id)
        plant.kill(part)
        took = plant.wait_until_training(job_id, more=1, seconds=shared(MOVES_SECONDS))
        print(f"{part}: an epoch further after {took:.1f} s")
        assert plant.job(job_id).attempt - before.attempt == (part in ("job", "worker", "supervisor"))
    print(f"Ctrl-C: nothing left after {plant.interrupt():.1f} s")
    plant.start()
    took = plant.wait_until_training(job_id, more=1, seconds=shared(MOVES_SECONDS))
    print(f"Ctrl-C, started again: an epoch further after {took:.1f} s")
    check_done(plant, job_id, run_id)


def test_cancel_ends_the_process_and_what_it_started(plant: Plant) -> None:
    job_id, _ = plant.queue_run(epochs=1000)
    plant.wait_until_training(job_id, more=1)
    process = plant.part("job")[0]
    plant.cancel(job_id)
    took = wait_for(lambda: not process.is_running(), "the end of a cancelled job's process")
    print(f"cancelled after {took:.1f} s")
    wait_for(lambda: plant.job(job_id).state == "cancelled", "the row of a cancelled job")
    wait_for(lambda: not list((plant.settings.data / "jobs").iterdir()), "its folder removed")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_kills_at_random_times(plant: Plant) -> None:
    """After each the job is at work again in time: an epoch, its end, or what it says of a stage."""
    chance = random.Random(0)
    job_id, run_id = plant.queue_run(epochs=60)
    for kill in range(1, 21):
        time.sleep(chance.uniform(0, 12))
        if plant.job(job_id).ended_at is not None:
            check_done(plant, job_id, run_id)
            job_id, run_id = plant.queue_run(epochs=60, seed=kill)
        part = chance.choice(["job", "worker", "broker", "supervisor"])
        wait_for(partial(plant.part, part), f"the {part}")
        plant.kill(part)
        before = plant.progress(job_id, run_id)
        moved = partial(plant.moved_on, job_id, run_id, before)
        took = wait_for(moved, f"a move after {part}", shared(MOVES_SECONDS))
        print(f"{kill} {part}: {before}, on after {took:.1f} s")
    check_done(plant, job_id, run_id)
