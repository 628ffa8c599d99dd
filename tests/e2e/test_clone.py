"""What a newcomer does: `git clone`, `make demo ARGS=--exit`, and then the dashboard of the same clone.

Minutes long. Only the downloads of the installation are spared: the clone's own environment sees the packages
that this one has, and `make` installs what is missing and Paredown itself into it.
"""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pandas as pd
import pytest

from tests.faults.plant import ENDS_SECONDS, shared, wait_for
from tests.support.browser import visiting

ROOT = Path(__file__).parents[2]
PORT = 18580
ADDRESS = f"http://127.0.0.1:{PORT}"
#: As wide as the table, in cells; settings of whoever runs the tests do not count.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PAREDOWN_")} | {
    "COLUMNS": "140", "PAREDOWN_PORT": str(PORT)
}  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "paredown"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    (site,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def make(clone: Path, *arguments: str) -> str:
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    done = subprocess.run(
        command, cwd=clone, env=ENVIRONMENT, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def up(clone: Path) -> Iterator[None]:
    """`make up`, ended by Ctrl-C, which a terminal sends to make and to all that it started."""
    command = ["make", f"PYTHON={sys.executable}", "up"]
    process = subprocess.Popen(
        command, cwd=clone, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(answers, "the dashboard's answer")
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(shared(ENDS_SECONDS))


def answers() -> bool:
    try:
        return httpx.get(f"{ADDRESS}/api/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def printed(told: str) -> Mapping[str, tuple[str, str]]:
    """(accuracy on validation in %, latency) by run, from the table in the terminal."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in told.splitlines() if "│" in line
    ]
    return {name: (accuracy, latency) for name, accuracy, _, _, latency, _, _ in rows}


def shown(file: Path) -> Mapping[str, tuple[str, str]]:
    """The same from Trade-offs."""
    points = pd.read_csv(file).set_index("label")
    return {
        str(label): (f"{100 * point.accuracy:.1f}", f"{1 / point.ratio:.2f}x faster")
        for label, point in points.iterrows()
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_clone_prints_the_table_and_its_dashboard_shows_the_same_points(clone: Path) -> None:
    make(clone, ".venv/.ready")  # the installation
    started = time.monotonic()
    told = make(clone, "demo", "ARGS=--exit")
    print(f"the demo took {time.monotonic() - started:.0f} s\n{told}")
    table = printed(told)
    assert len(table) >= 5
    exported = re.search(r"Exported: (\S+\.onnx)", told)
    assert exported
    file = clone / exported[1]

    with up(clone), visiting(f"{ADDRESS}/tradeoffs") as page:
        with page.expect_download(timeout=90_000) as download:
            page.get_by_test_id("stDownloadButton").get_by_role("button").click(timeout=90_000)
        points = shown(download.value.path())
        assert {name: points[name] for name in table if name != "Baseline"} == {
            name: numbers for name, numbers in table.items() if name != "Baseline"
        }
        assert points["Baseline"][0] == table["Baseline"][0]
        variant = pd.read_csv(download.value.path()).set_index("label")["variant"]
        files = [httpx.get(f"{ADDRESS}/api/downloads/variants/{variant[name]}").content for name in table]
        assert file.read_bytes() in files
