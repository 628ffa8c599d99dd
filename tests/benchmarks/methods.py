"""Every method and preset, and the peers' own recipes, on one network: accuracy, latency, size.

    python -m tests.benchmarks.methods FOLDER [--only PART] [--device cuda]

The network is `tests.benchmarks.fashion`'s. Every trial is listed; of each group the settings are chosen by
validation accuracy, and only then the test accuracy counts. Latencies of all files come from one session, as
ratios to float32 in ONNX Runtime, one thread, batch 1. Trials are kept in FOLDER: started again, it goes on.
Peers train as many epochs, at the same rate, with the same loop, as ours of the same group. Writes
results/methods.md. PART carries out the trials whose name holds it, and writes no table. Trials
may be trained on another machine: latencies are taken of the files, where the table is written.
"""

import argparse
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from app.recipes import presets
from tests.benchmarks.fashion import Fashion, fashion
from tests.benchmarks.peers import (
    nncf_default,
    onnxruntime_default,
    torch_pruning_example,
    torch_pruning_recipe,
)
from workers.base import Artefact, Bench, Candidate, Measurement, Target
from workers.catalog import RUNTIMES
from workers.deploy.export import export_onnx
from workers.host import host_facts
from workers.measures.accuracy import Accuracy
from workers.measures.latency import Latency
from workers.pipeline import Job, run
from workers.recipe import parse_recipe
from workers.training.settings import TrainingSettings

RESULTS = Path(__file__).parent / "results" / "methods.md"
RUNTIME, TARGET = RUNTIMES["onnxruntime"](), Target(host=host_facts().host)
#: Of every recovery in the group `pruning`, the peers' included.
EPOCHS, RATE = 4, 0.02
RECOVERY = TrainingSettings(epochs=EPOCHS, learning_rate=RATE)
STUDENT = {"method": "distillation", "student": "narrower", "width": 0.5, "epochs": 6, "learning_rate": 0.1}
Steps = Sequence[dict[str, object]]
#: (file, seed) -> what is to be noted; writes the file.
Make = Callable[[Path, int], str]


def pruned(**settings: object) -> Steps:
    recovery = {"recovery_epochs": EPOCHS, "recovery_learning_rate": RATE}
    return [{"method": "structured_pruning", "amount": 0.5, **recovery, **settings}]


def tuned(*steps: dict[str, object]) -> Steps:
    return [
        *steps,
        {"method": "fine_tuning", "epochs": 2, "learning_rate": RATE, "augmentation": "crop_flip"},
    ]


#: group -> name -> steps. Ours of one group compete on validation.
OURS: dict[str, dict[str, Steps]] = {
    "int8": {
        "static": [{"method": "quantization", "engine": "onnxruntime"}],
        "static, 512 samples": [{"method": "quantization", "engine": "onnxruntime", "samples": 512}],
        "static by NNCF": [{"method": "quantization", "engine": "nncf"}],
        "qat, 2 epochs": [{"method": "quantization", "mode": "qat", "epochs": 2}],
    },
    "other bits": {
        "dynamic": [{"method": "quantization", "mode": "dynamic", "keep_faster": False}],
        "fp16": [{"method": "quantization", "mode": "fp16"}],
    },
    "pruning 50 %": {
        "l2, uniform": pruned(),
        "taylor, uniform": pruned(importance="taylor"),
        "second_derivative, global": pruned(importance="second_derivative", scope="global"),
    },
    "pruning 75 %": {
        "l2, uniform": pruned(amount=0.75),
        "second_derivative, global": pruned(amount=0.75, importance="second_derivative", scope="global"),
    },
    "pruning by latency": {
        "second_derivative, global, 30 %": pruned(
            amount=0.3, amount_of="latency", importance="second_derivative", scope="global"
        ),
    },
    "low rank": {
        "time 0.7": tuned({"method": "low_rank"}),
        "energy 0.8": tuned({"method": "low_rank", "rank_by": "energy"}),
    },
    "unstructured": {
        "80 %, cubic": [{"method": "unstructured_pruning", "amount": 0.8, "pace": "cubic", "epochs": 1}],
        "2:4": tuned({"method": "unstructured_pruning", "pattern": "2:4"}),
    },
    "student": {"distilled": [STUDENT], "distilled, dkd": [{**STUDENT, "loss": "dkd"}]},
    "student, labels only": {"weight 0": [{**STUDENT, "weight": 0.0}]},
    "fine-tuning": {"2 epochs": tuned()},
    "presets": {
        name: [
            {key: value for key, value in step.items() if key != "engine"} for step in preset.recipe["steps"]
        ]
        for name, preset in presets().items()
    },
}
#: Where differences are small.
THREE_SEEDS = (
    "pruning 50 %",
    "pruning 50 %, peers",
    "pruning 75 %",
    "pruning 75 %, peers",
    "pruning by latency",
    "student",
    "student, labels only",
)


@dataclass(frozen=True)
class Trial:
    """One file and what it answers; file is None where the trial could not be carried out (`note`)."""

    group: str
    name: str
    seed: int
    file: Path | None
    validation: float = 0.0
    test: float = 0.0
    note: str = ""
    cpu_s: float = 0.0


class Bank:
    """The trials that are done, one JSON and one ONNX file each."""

    def __init__(self, folder: Path, task: Fashion) -> None:
        self.folder, self.task = folder / "trials", task
        self.folder.mkdir(exist_ok=True)

    def get(self, group: str, name: str, seed: int, make: Make) -> Trial:
        """make(file, seed) writes the file and says what is to be noted."""
        place = self.folder / f"{group} - {name} - {seed}.json".replace("/", "_")
        if not place.exists():
            file = place.with_suffix(".onnx")
            print(place.stem, flush=True)
            started = time.process_time()
            try:
                written = {"note": make(file, seed), "validation": 0.0, "test": 0.0, "file": file.name}
                written["validation"], written["test"] = self._accuracy(file)
            except Exception as error:  # noqa: BLE001  listed as a trial that failed
                written = {"note": f"{type(error).__name__}: {str(error)[:200]}", "file": None}
            place.write_text(json.dumps(written | {"cpu_s": time.process_time() - started}))
        written = json.loads(place.read_text())
        if written["file"] is None:
            return Trial(group, name, seed, None, note=written["note"], cpu_s=written["cpu_s"])
        return Trial(
            group,
            name,
            seed,
            self.folder / written["file"],
            written["validation"],
            written["test"],
            written["note"],
            written["cpu_s"],
        )

    def _accuracy(self, file: Path) -> tuple[float, float]:
        bench = Bench(self.task.data, RUNTIME, TARGET, lambda _: None)
        candidate = Candidate(self.task.model.spec, onnx=file)
        taken = Accuracy().take([Artefact(file, candidate)], bench)[0]
        values = {m.split: m.value or 0.0 for m in taken}
        return values["validation"], values["test"]


def ours(task: Fashion, folder: Path, device: torch.device, steps: Steps, file: Path, seed: int) -> str:
    outcome = run(
        Job(
            model=task.model,
            data=task.data,
            dataset=task.sha256,
            recipe=parse_recipe(json.dumps({"name": "trial", "steps": steps}), "trial"),
            folder=folder / "stages",
            runtime=RUNTIME,
            target=TARGET,
            device=device,
            seed=seed,
        )
    )
    shutil.copyfile(outcome.stages[-1].file, file)
    return " ".join(note for stage in outcome.stages for note in stage.notes)


def trials(task: Fashion, folder: Path, only: str, device: torch.device) -> list[Trial]:
    bank = Bank(folder, task)
    found: list[Trial] = []
    baseline = folder / "float32.onnx"
    export_onnx(task.model, baseline, task.data.classes)

    def add(group: str, name: str, make: Make) -> None:
        if only in f"{group} {name}":
            seeds = range(3 if group in THREE_SEEDS else 1)
            found.extend(bank.get(group, name, seed, make) for seed in seeds)

    add("float32", "as uploaded", lambda file, _: str(shutil.copyfile(baseline, file).name))
    for group, members in OURS.items():
        for name, steps in members.items():
            if "NNCF" not in name or importlib.util.find_spec("nncf"):
                add(group, name, partial(ours, task, folder, device, steps))
    for samples in (100, 300):
        name = f"onnxruntime.quantize_static, {samples} samples"
        add("int8, peers", name, partial(onnxruntime_default, task, baseline, samples))
    if importlib.util.find_spec("nncf"):
        add("int8, peers", "nncf.quantize", partial(nncf_default, task, baseline))
    for rounding in (None, 8):
        make = partial(torch_pruning_recipe, task, folder, device, RECOVERY, rounding)
        add("pruning 50 %, peers", f"torch-pruning, round_to {rounding}", make)
    # Half of the channels: about three quarters of the multiply-accumulates.
    make = partial(torch_pruning_example, task, folder, device, RECOVERY)
    add("pruning 75 %, peers", "torch-pruning, its README's example", make)
    return found


def latencies(task: Fashion, files: Sequence[Path]) -> dict[Path, Measurement]:
    """Ratio to the first file, all from one session."""
    bench = Bench(task.data, RUNTIME, TARGET, lambda _: None)
    artefacts = [Artefact(file, Candidate(task.model.spec, onnx=file)) for file in files]
    taken = Latency(seconds=4.0).take(artefacts, bench)
    return {
        file: next(m for m in found if m.name == "latency_ratio")
        for file, found in zip(files, taken, strict=True)
    }


def report(task: Fashion, found: Sequence[Trial]) -> str:
    """One row per trial's name, over its seeds; of each group the best on validation is marked."""
    files = [trial.file for trial in found if trial.file is not None]
    ratios = latencies(task, files)
    size = files[0].stat().st_size
    validation, test = ((split, len(task.data.labels(split))) for split in ("validation", "test"))
    head = (
        "| Group | Settings | Validation % | Test % | Latency, of float32 | Faster | Size, of float32 |\n"
        "|---|---|---:|---:|---:|---:|---:|\n"
    )
    rows = []
    for group in dict.fromkeys(trial.group for trial in found):
        names = dict.fromkeys(trial.name for trial in found if trial.group == group)
        means = {name: _mean(found, group, name, "validation") for name in names}
        for name in names:
            these = [t for t in found if (t.group, t.name) == (group, name) and t.file is not None]
            if not these:
                rows.append(f"| {group} | {name} | failed | | | | |")
                continue
            ratio = [ratios[t.file].value or 0.0 for t in these if t.file]
            bytes_ = [t.file.stat().st_size for t in these if t.file]
            best = "**" if means[name] == max(means.values()) else ""
            rows.append(
                f"| {group} | {best}{name}{best} | {_spread(found, group, name, *validation)} "
                f"| {_spread(found, group, name, *test)} | {np.mean(ratio):.3f} | {1 / np.mean(ratio):.2f}x "
                f"| {np.mean(bytes_) / size:.3f} |"
            )
    notes = [f"- {t.group}, {t.name}, seed {t.seed}: {t.note}" for t in found if t.note]
    return (
        f"{head}" + "\n".join(rows) + "\n\nBold: chosen on validation "
        f"({validation[1]:,} samples; test {test[1]:,}). In brackets: 95 % interval of the samples (Wilson); "
        "where three seeds were trained, their mean (least to most). "
        f"Host: {host_facts().cpu}, {TARGET.threads} thread, batch 1. The trials took "
        f"{sum(t.cpu_s for t in found) / 60:.0f} minutes of one core, the network itself not counted.\n\n"
        + "\n".join(notes)
        + "\n"
    )


def _values(found: Sequence[Trial], group: str, name: str, split: str) -> list[float]:
    return [100 * getattr(t, split) for t in found if (t.group, t.name) == (group, name) and t.file]


def _mean(found: Sequence[Trial], group: str, name: str, split: str) -> float:
    values = _values(found, group, name, split)
    return float(np.mean(values)) if values else -1.0


def _spread(found: Sequence[Trial], group: str, name: str, split: str, samples: int) -> str:
    """Of one seed with the 95 % interval of so many samples; of several the mean, the least and the most."""
    values = _values(found, group, name, split)
    low, high = min(values), max(values)
    if len(values) == 1:
        drawn = binomtest(round(values[0] * samples / 100), samples).proportion_ci(method="wilson")
        low, high = 100 * drawn.low, 100 * drawn.high
    return f"{np.mean(values):.2f} ({low:.2f}–{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="where it trains")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = fashion(options.folder)
    found = trials(task, options.folder, options.only, options.device)
    if not options.only:
        RESULTS.write_text(report(task, found))


if __name__ == "__main__":
    main()
