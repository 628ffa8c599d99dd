"""How long a queued job waits for an idle worker, and how long it stands still after a `kill -9`.

    python -m tests.benchmarks.queue_and_recovery [STARTS] [KILLS_PER_PART]

Runs `paredown up` on a folder of its own. Started: the job's process said what it does. Back: an epoch or a
stage more than before the kill was kept. Goals: 0.5 s and 20 s.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.plant import Plant, wait_for

RESULTS = Path(__file__).parent / "results" / "queue_and_recovery.md"
PARTS = ("job", "worker", "broker", "supervisor")


def start_s(plant: Plant, seed: int) -> float:
    """From before the row is written until the job's process speaks."""
    started = time.perf_counter()
    job_id, _ = plant.queue_run(epochs=1, seed=seed)
    while plant.job(job_id).text in ("", "Waiting for a worker", "Starting"):
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    plant.wait_until_ended(job_id)
    time.sleep(8)  # the next process has imported everything
    return seconds


def standstill_s(plant: Plant, part: str, seed: int) -> float:
    job_id, run_id = plant.queue_run(epochs=1000, seed=seed)
    plant.wait_until_training(job_id)
    time.sleep(12)  # what was killed before counts as healthy again
    before = plant.progress(job_id, run_id)
    plant.kill(part)
    seconds = wait_for(lambda: plant.moved_on(job_id, run_id, before), f"a move after {part}")
    plant.cancel(job_id)
    plant.wait_until_ended(job_id)
    return seconds


def row(what: str, seconds: list[float], goal: float) -> str:
    middle, longest = statistics.median(seconds), max(seconds)
    return f"| {what} | {len(seconds)} | {middle:.2f} s | {longest:.2f} s | {goal} s |\n"


def main() -> None:
    starts, kills = (int(word) for word in [*sys.argv[1:], "10", "3"][:2])
    with tempfile.TemporaryDirectory() as folder, Plant(Path(folder)) as plant:
        plant.start()
        plant.wait_until_imported()
        time.sleep(8)
        table = "| What | Times | Median | Longest | Goal |\n|---|---:|---:|---:|---:|\n"
        waits = [start_s(plant, 10_000 + number) for number in range(starts)]
        table += row("start on an idle worker", waits, 0.5)
        for number, part in enumerate(PARTS):
            found = [standstill_s(plant, part, 100 * number + kill) for kill in range(kills)]
            table += row(f"standstill after `kill -9` of the {part}", found, 20)
            print(table)
    RESULTS.write_text(table)


if __name__ == "__main__":
    main()
