"""How far guessed latencies are from measured ones, on networks that no table was built from.

    python -m tests.benchmarks.predictor FOLDER [--only NAME]

For every network a table is built as the dashboard's job does; then recipes that it has not seen are carried
out (weights are random, nothing is trained, which changes no time), exported and measured by the usual
protocol: ONNX Runtime, one thread, batch 1, ratio of the 10th percentiles to the network as it is. Beside
ours stand two simpler guesses: the ratio of multiply-accumulates, and least squares on the layers alone.
Tables and measurements are kept in FOLDER: started again, it goes on. Writes results/predictor.md.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnx
import torch

from tests.support.noise import Noise
from workers.base import Bench, Candidate, Context, ImagePreprocessing, Method, ModelSpec, Place
from workers.catalog import METHODS
from workers.deploy.export import export_onnx
from workers.graph.students import known
from workers.host import host_facts, versions
from workers.measures.latency import Latency
from workers.measures.macs import count_macs
from workers.places import USUAL, choose
from workers.prediction.building import build
from workers.prediction.expecting import Predictor
from workers.prediction.surface import Surface
from workers.prediction.table import Table
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_of_host
from workers.quantization.static import float_tensors
from workers.quantization.writing import NARROW, static

RESULT = Path(__file__).parent / "results" / "predictor.md"
NETWORKS = {"cifar_resnet8": 32, "resnet18": 64, "mobilenet_v3_small": 96, "efficientnet_b0": 64}
SECONDS, AT_ONCE = 2.0, 5
UNTRAINED = {"recovery": "none", "recalibrate": False}


def pruned(amount: float, **settings: object) -> Method:
    return METHODS["structured_pruning"].model_validate({"amount": amount, **UNTRAINED, **settings})


INT8 = METHODS["quantization"].model_validate({"keep_faster": False})
#: What the recipes are called, and their steps.
RECIPES: dict[str, Sequence[Method]] = {
    **{f"uniform, {amount:.0%} of MACs": [pruned(amount)] for amount in (0.2, 0.35, 0.5, 0.6, 0.8)},
    **{f"global, {amount:.0%} of MACs": [pruned(amount, scope="global")] for amount in (0.3, 0.6)},
    "global by random scores, 50 % of MACs": [pruned(0.5, scope="global", importance="random")],
    "uniform, 50 % of parameters": [pruned(0.5, amount_of="parameters")],
    "uniform, multiples of 16, 50 % of MACs": [pruned(0.5, round_to=16)],
    "low rank, a third of the full": [
        METHODS["low_rank"].model_validate(
            {"rank_by": "ratio", "ratio": 0.33, "only_faster": False, "recalibrate": False}
        )
    ],
    "int8": [INT8],
    "uniform, 40 % of MACs, int8": [pruned(0.4), INT8],
}


class LayersAlone(Surface):
    """Without the corrections towards the rows."""

    def _layers(self, places: np.ndarray) -> np.ndarray:
        times: np.ndarray = (self._costs(places) * self._fitted[0]).sum(-1)
        return times

    def _whole(self, places: np.ndarray) -> float:  # noqa: ARG002
        return 1.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=NETWORKS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, size in NETWORKS.items():
        if options.only in (None, name):
            measured(name, size, options.folder)
    found = {name: options.folder / f"{name}.json" for name in NETWORKS}
    RESULT.write_text(report({n: json.loads(f.read_text()) for n, f in found.items() if f.exists()}))


def measured(name: str, size: int, folder: Path) -> None:
    """Keeps the rows of a network: recipe, measured, guesses."""
    result = folder / f"{name}.json"
    if result.exists():
        return
    preprocessing = ImagePreprocessing(channels=3, height=size, width=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = ModelSpec(name=name, sha256="0" * 64, architecture=name, classes=10, preprocessing=preprocessing)
    model, place = Candidate(spec, known(name, spec, seed=0)), choose(USUAL, 1).steps
    base = folder / f"{name}.onnx"
    export_onnx(model, base, ())
    table = table_of(name, model, place, folder)
    rows: list[dict[str, Any]] = []
    for recipe, steps in RECIPES.items():
        print(name, recipe, flush=True)
        try:
            left = carried_out(model, steps, place, file := folder / f"{name}-{len(rows)}.onnx")
        except Exception as error:  # noqa: BLE001 - what cannot be made is listed with why
            rows.append({"recipe": recipe, "why": f"{type(error).__name__}: {str(error)[:100]}"})
            continue
        rows.append({"recipe": recipe, "file": str(file), **guesses(table, steps), "macs_left": left})
    made = [row for row in rows if "file" in row]
    bench = Bench(Noise(spec.preprocessing.shape), place.runtime, place.target, lambda _: None)
    for start in range(0, len(made), AT_ONCE):
        part = made[start : start + AT_ONCE]
        ratios = Latency(seconds=SECONDS).ratios([base, *(Path(row["file"]) for row in part)], bench)
        for row, ratio in zip(part, ratios[1:], strict=True):
            row["ratio"] = ratio
    result.write_text(json.dumps(rows))


def table_of(name: str, model: Candidate, place: Place, folder: Path) -> Table:
    kept = folder / f"{name}.table.json"
    if not kept.exists():
        built = folder / f"{name}.networks"
        built.mkdir(exist_ok=True)
        table = build(
            model, name, place, torch.device("cpu"), built, lambda p: print(name, p.text, flush=True)
        )
        kept.write_text(table.model_dump_json())
    return Table.model_validate_json(kept.read_text())


def carried_out(model: Candidate, steps: Sequence[Method], place: Place, file: Path) -> float:
    """Writes the file; returns the share of multiply-accumulates that is left."""
    assert model.graph is not None
    before = count_macs(model.graph, model.spec)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            data=Noise(model.spec.preprocessing.shape),
            original=model,
            runtime=place.runtime,
            target=place.target,
            device=torch.device("cpu"),
            seed=0,
            scratch=Path(folder),
            tell=lambda _: None,
        )
        made = model
        for step in steps:
            if step is not INT8:
                made = step.apply(made, context)
        assert made.graph is not None
        export_onnx(made, file, ())
        if INT8 in steps:
            # Time depends on the operators alone: ranges need not fit.
            _, network = float_network(Candidate(model.spec, onnx=file), (), Path(folder) / "float")
            ranges = dict.fromkeys(float_tensors(network), (-3.0, 3.0))
            onnx.save(static(network, ranges, scheme_of_host(), NARROW)(frozenset()), file)
        return count_macs(made.graph, model.spec) / before


def guesses(table: Table, steps: Sequence[Method]) -> dict[str, float | None]:
    ours, simple = Predictor(table), Predictor(table)
    simple.float32 = LayersAlone(table.plan, table.float32)
    simple.int8 = LayersAlone(table.plan, table.int8)
    return {"ours": ours.expect(steps).ratio, "layers alone": simple.expect(steps).ratio}


def report(networks: dict[str, list[dict[str, Any]]]) -> str:
    guessed = ("ours", "layers alone", "macs_left")
    lines = [
        "# Guessed latency against measured",
        "",
        f"`python -m tests.benchmarks.predictor FOLDER`; {host_facts().cpu}, ONNX Runtime "
        f"{versions()['onnxruntime']}, one thread, batch 1, the machine shared with other work. Expected: "
        "a mean absolute error of at most 5 % on networks that no table was built from. All trials are here.",
        "",
        "Mean absolute error, networks in float32 (and with int8 and low rank):",
        "",
        "| network | trials | ours | least squares on layers alone | ratio of MACs |",
        "|:--|--:|--:|--:|--:|",
    ]
    every = [(name, row) for name, rows in networks.items() for row in rows if "ratio" in row]
    for name in (*networks, "all"):
        rows = [row for owner, row in every if name in (owner, "all")]
        plain = [row for row in rows if not any(word in row["recipe"] for word in ("int8", "low rank"))]
        cells = [f"{error(plain, guess)} ({error(rows, guess)})" for guess in guessed]
        lines.append(f"| {name} | {len(plain)} ({len(rows)}) | {' | '.join(cells)} |")
    for name, rows in networks.items():
        size = NETWORKS[name]
        lines += ["", f"## {name}, {size} x {size}", "", "| recipe | measured | ours | error | MACs |"]
        lines.append("|:--|--:|--:|--:|--:|")
        for row in rows:
            if "ratio" not in row:
                lines.append(f"| {row['recipe']} | – | – | {row['why']} | |")
                continue
            off = "–" if row["ours"] is None else f"{100 * (row['ours'] / row['ratio'] - 1):+.1f} %"
            told = "–" if row["ours"] is None else f"{row['ours']:.3f}"
            lines.append(
                f"| {row['recipe']} | {row['ratio']:.3f} | {told} | {off} | {row['macs_left']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def error(rows: Sequence[dict[str, Any]], guess: str) -> str:
    """The mean of absolute errors, and the largest."""
    errors = [abs(row[guess] / row["ratio"] - 1) for row in rows if row[guess] is not None]
    return f"{100 * mean(errors):.1f} %, at most {100 * max(errors):.1f} %" if errors else "–"


if __name__ == "__main__":
    main()
