"""How much accuracy each importance leaves when channels go, without any training afterwards.

    python -m tests.benchmarks.importance WEIGHTS --arch cifar_resnet8 --dataset sample [--name sample]

Widths are not rounded, so that all importances are compared at the same MACs; `random` is the control. The
seeds draw the calibration samples, their order and the control. Writes results/importance_NAME.md and the
figure beside it.
"""

import argparse
import dataclasses
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.fx import GraphModule

from workers.base import Candidate, Context, LabelledData, Target
from workers.data import open_dataset
from workers.graph.importing import import_model
from workers.host import host_facts, versions
from workers.importance import IMPORTANCES
from workers.pruning.choosing import Scope
from workers.pruning.costs import cost_of
from workers.pruning.following import follow
from workers.pruning.search import narrow, sample_input
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.training.statistics import recalibrate

AMOUNTS = (0.2, 0.4, 0.6, 0.8)
SCOPES: tuple[Scope, ...] = ("uniform", "global")
SEEDS = 3
RESULTS = Path(__file__).parent / "results"
#: (scope, BatchNorm statistics taken anew, importance, amount) -> accuracy per seed.
Accuracies = dict[tuple[Scope, bool, str, float], list[float]]


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, context = opened(options, Path(folder))
        assert model.graph is not None
        whole = accuracy(model.graph, context.data)
        found = measured(model, context)
    RESULTS.mkdir(exist_ok=True)
    draw(found, whole, RESULTS / f"importance_{options.name}.svg")
    (RESULTS / f"importance_{options.name}.md").write_text(report(found, whole, options))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--name", default="sample", help="of the files that are written")
    parser.add_argument("--cache", type=Path, help="folder for data sets that are downloaded or decoded")
    return parser.parse_args()


def opened(options: argparse.Namespace, folder: Path) -> tuple[Candidate, Context]:
    dataset = open_dataset(options.dataset, cache=options.cache or folder, seed=0)
    model = import_model(options.weights, folder, architecture=options.arch, data_size=max(dataset.largest))
    context = Context(
        data=dataset.prepare(model.spec.preprocessing, options.cache or folder),
        original=model,
        runtime=OnnxRuntime(),
        target=Target(host=host_facts().host),
        device=torch.device("cpu"),
        seed=0,
        scratch=folder,
        tell=lambda _: None,
    )
    return model, context


def measured(model: Candidate, context: Context) -> Accuracies:
    """An importance that gives the same scores for two seeds does not depend on them: once is enough."""
    assert model.graph is not None
    found: Accuracies = defaultdict(list)
    for name, importance in IMPORTANCES.items():
        scores: dict[str, torch.Tensor] = {}
        taken: dict[tuple[Scope, bool, float], float] = {}
        for seed in range(SEEDS):
            before = scores
            scores = importance().scores(model.graph, dataclasses.replace(context, seed=seed))
            if not before or any(not torch.equal(score, before[key]) for key, score in scores.items()):
                taken = pruned_by(scores, model, context)
                print(name, seed, taken, flush=True)
            for (scope, anew, amount), value in taken.items():
                found[scope, anew, name, amount].append(value)
    return found


def pruned_by(
    scores: Mapping[str, torch.Tensor], model: Candidate, context: Context
) -> dict[tuple[Scope, bool, float], float]:
    """Accuracy by scope, BatchNorm statistics taken anew or not, and amount."""
    assert model.graph is not None
    sample, cost = sample_input(model.spec, 0), cost_of("macs", model, context)
    groups = follow(model.graph, sample, scores, frozenset()).groups
    taken = {}
    for scope, amount in itertools.product(SCOPES, AMOUNTS):
        narrowed = narrow(
            model.graph, sample, groups, cost, amount, scope=scope, round_to=1, tell=context.tell
        )
        assert narrowed is not None
        taken[scope, False, amount] = accuracy(narrowed.graph, context.data)
        recalibrate(narrowed.graph, context)
        taken[scope, True, amount] = accuracy(narrowed.graph.eval(), context.data)
    return taken


@torch.inference_mode()
def accuracy(graph: GraphModule, data: LabelledData) -> float:
    """Share of the test split that is answered rightly."""
    answers = [graph(inputs).argmax(1) for inputs, _ in data.batches("test", 256)]
    return float((torch.cat(answers).numpy() == data.labels("test")).mean())


def report(found: Accuracies, whole: float, options: argparse.Namespace) -> str:
    host, packages = host_facts(), versions()
    parts = [
        f"# Accuracy after pruning without training: {options.arch} on {options.dataset}",
        f"Test accuracy in % against the share of MACs removed; {100 * whole:.1f} before. Mean of {SEEDS} "
        "seeds, which draw calibration samples and control, ± the standard deviation where they matter.",
    ]
    parts += [claim(found, anew) for anew in (True, False)]
    for scope, anew in itertools.product(SCOPES, (False, True)):
        norms = "BatchNorm statistics taken anew" if anew else "BatchNorm statistics of before"
        parts.append(f"## {scope.capitalize()} scope, {norms}")
        parts.append(table(found, scope, anew))
    parts.append(f"![accuracy against amount](importance_{options.name}.svg)")
    parts.append(
        f"Made with `python -m tests.benchmarks.importance WEIGHTS --arch {options.arch} --dataset "
        f"{options.dataset}` on {host.cpu}, torch {packages['torch']}."
    )
    return "\n\n".join(parts) + "\n"


def claim(found: Accuracies, anew: bool) -> str:
    """Which importances beat the control, by the means: that is what may be said elsewhere."""
    cells = list(itertools.product(SCOPES, AMOUNTS))
    better = {
        name: sum(
            np.mean(found[scope, anew, name, amount]) > np.mean(found[scope, anew, "random", amount])
            for scope, amount in cells
        )
        for name in IMPORTANCES
        if name != "random"
    }
    always = [name for name, times in better.items() if times == len(cells)]
    told = [
        f"{name} in {times} of {len(cells)} cases" for name, times in better.items() if name not in always
    ]
    norms = "taken anew, as `structured_pruning` does" if anew else "of before"
    return (
        f"Better than random with BatchNorm statistics {norms}: at every amount in both scopes "
        f"{', '.join(always) or 'none'}{''.join('; ' + each for each in told)}."
    )


def table(found: Accuracies, scope: Scope, anew: bool) -> str:
    rows = [
        "| importance | " + " | ".join(f"{amount:.0%}" for amount in AMOUNTS) + " |",
        "|---" * (len(AMOUNTS) + 1) + "|",
    ]
    for name in IMPORTANCES:
        cells = [cell(found[scope, anew, name, amount]) for amount in AMOUNTS]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def cell(accuracies: Sequence[float]) -> str:
    mean, spread = 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1)
    return f"{mean:.1f} ± {spread:.1f}" if spread >= 0.05 else f"{mean:.1f}"


def draw(found: Accuracies, whole: float, file: Path) -> None:
    """Mean over the seeds, the range as a band; one panel per scope and BatchNorm."""
    mpl.rcParams["svg.hashsalt"] = "importance"
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, scope in enumerate(SCOPES):
        for column, anew in enumerate((False, True)):
            panel = panels[row, column]
            for name in IMPORTANCES:
                values = 100 * np.array([found[scope, anew, name, amount] for amount in AMOUNTS])
                style = {"color": "grey", "linestyle": "--"} if name == "random" else {}
                (line,) = panel.plot(AMOUNTS, values.mean(1), label=name, marker=".", **style)
                panel.fill_between(AMOUNTS, values.min(1), values.max(1), alpha=0.15, color=line.get_color())
            panel.axhline(100 * whole, color="black", linewidth=0.5)
            panel.set_title(f"{scope}, BatchNorm {'taken anew' if anew else 'as before'}")
    figure.supxlabel("Share of MACs removed")
    figure.supylabel("Test accuracy %")
    panels[0, 0].legend()
    figure.savefig(file, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
