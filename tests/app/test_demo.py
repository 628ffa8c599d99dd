"""`paredown demo --exit` as a newcomer runs it: the real queue, worker and sample. Minutes long."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
import pytest

from app.demo import recipes


def demo(data: Path) -> str:
    environment = os.environ | {"PAREDOWN_DATA": str(data), "PAREDOWN_PORT": "18540", "COLUMNS": "140"}
    command = [sys.executable, "-m", "app.cli", "demo", "--exit"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_demo_ends_with_a_table_and_a_file_and_is_quick_the_second_time(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    told = demo(tmp_path)
    rows = [line for line in told.splitlines() if line.startswith("│")]
    assert len(rows) == len(recipes()) + 1
    assert "Baseline" in rows[0]
    exported = re.search(r"Exported: (\S+\.onnx)", told)
    assert exported
    session = ort.InferenceSession(exported[1])
    (logits,) = session.run(None, {"input": np.zeros((2, 1, 28, 28), np.float32)})
    assert np.asarray(logits).shape == (2, 10)

    started = time.monotonic()
    again = demo(tmp_path)
    assert [line for line in again.splitlines() if line.startswith("│")] == rows
    assert time.monotonic() - started < 60
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
