"""How far the latency ratio of two identical files is from 1 while every core has a busy neighbour.

    python -m tests.benchmarks.ratio_repeatability [--repeats 20] [--seconds 2.5] [--result FILE]

Expected: at most 2 % in the median of twenty tries.

Beside it stands what most people do: mean and median of 50 calls of one file, then of the other; and, where
OpenVINO is installed, its `benchmark_app` for as long on one file, then on the other. Writes its table
to results/ratio_repeatability.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torchvision

from workers.base import Artefact, Bench, Candidate, ImagePreprocessing, Measurement, ModelSpec, Split, Target
from workers.host import host_facts, usable_cores, versions
from workers.measures.latency import Latency
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.runtimes.openvino import OpenVino

SHAPE = (3, 64, 64)
SPEC = ModelSpec(
    name="resnet18",
    sha256="0" * 64,
    architecture="resnet18",
    classes=1000,
    preprocessing=ImagePreprocessing(channels=3, height=64, width=64, mean=(0.0,) * 3, std=(1.0,) * 3),
)
RESULT = Path(__file__).parent / "results" / "ratio_repeatability.md"
SPIN = "import os, sys\nos.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: sum(range(10000))"


class RandomPictures:
    """Enough for files whose time does not depend on what they see."""

    classes = tuple(map(str, range(1000)))

    def labels(self, split: Split) -> np.ndarray:  # noqa: ARG002
        return np.zeros(32, np.int64)

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:  # noqa: ARG002
        return np.arange(32)

    def batches(
        self,
        split: Split,  # noqa: ARG002
        batch_size: int,
        *,
        shuffle: int | None = None,  # noqa: ARG002
        augment: str = "none",  # noqa: ARG002
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(32):
            yield torch.rand(batch_size, *SHAPE), torch.zeros(batch_size, dtype=torch.int64)


def main() -> None:
    options = arguments()
    bench = Bench(RandomPictures(), OnnxRuntime(), Target(host=host_facts().host), lambda _: None)
    with tempfile.TemporaryDirectory() as folder, busy_neighbours():
        twins = [Artefact(file, Candidate(SPEC)) for file in identical_files(Path(folder))]
        ours = []
        others: dict[str, list[float]] = {}
        for number in range(options.repeats):
            ours.append(ratio_by_protocol(twins, bench, options.seconds))
            for name, times_ms in {
                **stopwatch(twins, bench),
                **benchmark_app(twins, options.seconds),
            }.items():
                others.setdefault(name, []).append(times_ms[1] / times_ms[0])
            told = ", ".join(f"{name}: {ratios[-1]:.4f}" for name, ratios in others.items())
            print(f"{number + 1}: {ours[-1].value:.4f} {ours[-1].marks}; {told}", flush=True)
    options.result.write_text(table(ours, others, options))
    print(options.result.read_text())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.5, help="per file and repeat")
    parser.add_argument("--result", type=Path, default=RESULT, help="file of the table")
    return parser.parse_args()


def identical_files(folder: Path) -> list[Path]:
    """ResNet-18, 45 MB, exported once and copied."""
    first, second = folder / "first.onnx", folder / "second.onnx"
    net = torchvision.models.resnet18().eval()
    torch.onnx.export(net, (torch.rand(1, *SHAPE),), first, dynamo=True, external_data=False, verbose=False)
    shutil.copy(first, second)
    return [first, second]


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """One process per core that never rests."""
    neighbours = [subprocess.Popen([sys.executable, "-c", SPIN, str(core)]) for core in usable_cores()]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def ratio_by_protocol(twins: list[Artefact], bench: Bench, seconds: float) -> Measurement:
    measured = Latency(seconds=seconds).take(twins, bench)[1]
    return next(measurement for measurement in measured if measurement.name == "latency_ratio")


def stopwatch(twins: list[Artefact], bench: Bench) -> dict[str, list[float]]:
    """Naive milliseconds of one file, then of the other."""
    calls_ms = np.array([calls(twin, bench) for twin in twins])
    return {
        "mean of 50 calls, one file after the other": calls_ms.mean(axis=1).tolist(),
        "median of 50 calls, one file after the other": np.median(calls_ms, axis=1).tolist(),
    }


def calls(artefact: Artefact, bench: Bench) -> list[float]:
    session = bench.runtime.open(artefact.file, threads=bench.target.threads)
    picture, found = np.zeros((1, *SHAPE), np.float32), []
    session.run(picture)
    for _ in range(50):
        start = time.perf_counter()
        session.run(picture)
        found.append((time.perf_counter() - start) * 1000)
    return found


def benchmark_app(twins: list[Artefact], seconds: float) -> dict[str, list[float]]:
    """The medians that OpenVINO's own tool tells, in steps of 0.01 ms; nothing where it is not installed."""
    if OpenVino.missing():
        return {}
    return {
        "OpenVINO's benchmark_app (median), one file after the other": [app_ms(t, seconds) for t in twins]
    }


def app_ms(artefact: Artefact, seconds: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "-m": artefact.file, "-d": "CPU", "-api": "sync", "-hint": "none", "-nstreams": 1, "-nthreads": 1,
            "-infer_precision": "f32", "-shape": f"[{','.join(map(str, (1, *SHAPE)))}]",
            "-t": max(1, round(seconds)), "-report_type": "no_counters", "-report_folder": folder,
        }  # fmt: skip
        words = [str(word) for pair in options.items() for word in pair]
        call = "from openvino.tools.benchmark.main import main; main()"
        command = [sys.executable, "-c", call, *words, "-json_stats"]
        subprocess.run(command, check=True, capture_output=True)
        (report,) = Path(folder).glob("*.json")
        return float(json.loads(report.read_text())["execution_results"]["latency (ms)"])


def table(ours: list[Measurement], others: dict[str, list[float]], options: argparse.Namespace) -> str:
    host, packages = host_facts(), versions()
    held = sum(m.low <= 1 <= m.high for m in ours if m.low is not None and m.high is not None)
    marked = sum("contended" in m.marks for m in ours)
    rows = "\n".join(f"| {name} | {distances(ratios)} | - | - |" for name, ratios in others.items())
    openvino = "" if OpenVino.missing() else f", openvino {OpenVino.version()}"
    return f"""# Latency ratio of two identical files, a busy neighbour on every core

Expected before the first run: of twenty tries a median distance of at most 2 %.

| how | largest distance from 1 | median distance | interval held 1 | marked contended |
|---|---|---|---|---|
| Paredown | {distances([m.value or 0 for m in ours])} | {held} of {len(ours)} | {marked} of {len(ours)} |
{rows}

ResNet-18, 3 x 64 x 64, 1 thread, batch 1; {options.repeats} repeats, {options.seconds:g} s per file.

Made with `python tests/benchmarks/ratio_repeatability.py --repeats {options.repeats} \
--seconds {options.seconds:g}`
on {host.cpu}, {host.logical_cores} cores, {host.instructions}, {host.system}, Python {packages["python"]},
torch {packages["torch"]}, onnxruntime {packages["onnxruntime"]}{openvino}.
"""


def distances(ratios: list[float]) -> str:
    away = np.abs(np.array(ratios) - 1)
    return f"{away.max():.2%} | {np.median(away):.2%}"


if __name__ == "__main__":
    main()
