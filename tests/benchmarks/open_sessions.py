"""What open browser sessions that watch a run cost the web process.

    python -m tests.benchmarks.open_sessions [SESSIONS] [SECONDS]

Runs `paredown up` on a folder of its own, opens the page of a training run in as many tabs of a real browser,
and compares the web process' CPU time with no, and with all of them open. Goal: 5 % of a core.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.faults.plant import Plant
from tests.support.browser import chromium

RESULTS = Path(__file__).parent / "results" / "open_sessions.md"


def cores(plant: Plant, seconds: float) -> float:
    """Share of a core that the web process used."""
    (web,) = plant.part("web")
    used, started = sum(web.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return (sum(web.cpu_times()[:2]) - used) / (time.monotonic() - started)


def main() -> None:
    sessions, seconds = (int(word) for word in [*sys.argv[1:], "20", "60"][:2])
    with (
        tempfile.TemporaryDirectory() as folder,
        Plant(Path(folder)) as plant,
        chromium() as browser,
    ):
        plant.start()
        plant.wait_until_imported()
        job_id, run_id = plant.queue_run(epochs=1000)
        plant.wait_until_training(job_id)
        alone = cores(plant, seconds)
        pages = [browser.new_page() for _ in range(sessions)]
        for page in pages:
            page.set_default_timeout(240_000)
            page.goto(f"http://127.0.0.1:{plant.settings.port}/runs?run={run_id}", wait_until="commit")
        for page in pages:
            page.get_by_text("Cancel").first.wait_for()
        time.sleep(10)
        watched = cores(plant, seconds)
    table = (
        "| Sessions | CPU of the web process without | with | Goal |\n|---:|---:|---:|---:|\n"
        f"| {sessions} | {alone:.1%} of a core | {watched:.1%} of a core | 5 % |\n"
    )
    print(table)
    RESULTS.write_text(table)


if __name__ == "__main__":
    main()
