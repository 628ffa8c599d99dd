"""What the throughput grid finds, beside one default session that is called with one sample at a time.

    python -m tests.benchmarks.throughput [TABLE.md] [--seconds 60]

The sample's net and torchvision's resnet18, with random weights: they take as long as trained ones. After
the grid, the default session and the cell that the grid calls best are called in turns, so that neighbours
disturb both alike; the gain is the median of the turns' ratios.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import torch
import torchvision

from workers.base import INPUT_NAME, Session
from workers.graph.resnets import RESNETS
from workers.graph.to_onnx import to_onnx
from workers.host import host_facts, logical_cores, versions
from workers.measures.latency import alone
from workers.runtimes.onnxruntime import ERRORS_ONLY, OnnxRuntime
from workers.throughput.grid import Cell, Grid, best_under
from workers.throughput.search import measure_grid
from workers.throughput.streams import opened
from workers.work.sample import ARCHITECTURE, WIDTH

TURNS, TURN_SECONDS = 7, 2.0
EXPECTED = """\
Expected before the first run: of the sample's net, whose calls take a tenth of a millisecond, three times
what the default session gives, since its two threads wait for each other and each call has a fixed cost that
batches share; of resnet18 about a fifth more, since one call keeps both cores busy already."""


class Default(Session):
    """ONNX Runtime as `InferenceSession(file)` opens it."""

    def __init__(self, file: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        self._session = ort.InferenceSession(file, options, ["CPUExecutionProvider"])

    def run(self, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {INPUT_NAME: inputs})[0])


def networks() -> dict[str, tuple[torch.nn.Module, tuple[int, int, int]]]:
    torch.manual_seed(0)
    return {
        "sample": (RESNETS[ARCHITECTURE](num_classes=10, in_channels=1, width=WIDTH), (1, 28, 28)),
        "resnet18": (torchvision.models.resnet18(), (3, 224, 224)),
    }


def written(net: torch.nn.Module, shape: tuple[int, int, int], file: Path) -> Path:
    onnx.save(to_onnx(net.eval(), shape), str(file))
    return file


def against_default(file: Path, samples: np.ndarray, best: Cell, cores: int) -> tuple[float, float]:
    """(samples/s of the default session, median ratio of the best cell to it)."""
    ratios, rates = [], []
    way = best.way
    ours: Callable[[], Session] = partial(OnnxRuntime().open, file, threads=way.threads)
    for _ in range(TURNS):
        with alone(cores), opened(lambda: Default(file), cores, 1) as default:
            rates.append(default.visit(samples, 1, TURN_SECONDS).samples_per_s)
        with alone(way.cores), opened(ours, way.threads, way.streams) as streams:
            ratios.append(streams.visit(samples, way.batch, TURN_SECONDS).samples_per_s / rates[-1])
    return float(np.median(rates)), float(np.median(ratios))


def section(name: str, grid: Grid, default: float, ratio: float) -> str:
    best = best_under(grid.cells, None)
    assert best is not None
    rows = "\n".join(
        f"| {cell.way.streams} | {cell.way.threads} | {cell.way.batch} | {told(cell)} |"
        for cell in grid.cells
    )
    return f"""## {name}

Best: {best.way}. In turns with it, the default session with batch 1 gives {default:,.0f} samples/s, the best
cell **{ratio:.2f}x** that (median of {TURNS} turns).

| streams | threads | batch | samples/s | visits | p50 ms | tail ms | calls | marks |
|---:|---:|---:|---:|---:|---:|---:|---:|---|
{rows}
"""


def told(cell: Cell) -> str:
    if not cell.calls:
        return "not measured | | | | |"
    name, tail_ms = cell.tail
    return (
        f"{cell.samples_per_s:,.0f} | {cell.low:,.0f}–{cell.high:,.0f} | {cell.p50_ms:.3g} | "
        f"{name} {tail_ms:.3g} | {cell.calls:,} | {', '.join(cell.marks)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    cores, sections, load = logical_cores(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, (net, shape) in networks().items():
            file = written(net, shape, Path(folder) / f"{name}.onnx")
            samples = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
            grid = measure_grid(OnnxRuntime(), file, samples, cores=cores, seconds=options.seconds)
            load.append(psutil.getloadavg()[0])
            best = best_under(grid.cells, None)
            assert best is not None
            sections.append(section(name, grid, *against_default(file, samples, best, cores)))
    host, packages = host_facts(), versions()
    loads, tables = " and ".join(f"{one:.1f}" for one in load), "\n".join(sections)
    text = f"""# Samples per second over threads, streams and batches

{EXPECTED}

{tables}
Tails are p99 from 662 calls on, else p90. Budget {options.seconds:g} s per file. Load average of the machine
meanwhile: {loads} on {cores} cores. Above that number neighbours were at work: levels are then low and noisy,
and the order of cells may be theirs; the ratio to the default session is taken in turns.

Made with `python -m tests.benchmarks.throughput TABLE.md --seconds {options.seconds:g}`
on {host.cpu}, {host.logical_cores} cores, {host.instructions}, {host.system}, Python {packages["python"]},
torch {packages["torch"]}, onnxruntime {packages["onnxruntime"]}.
"""
    print(text)
    if options.table:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
