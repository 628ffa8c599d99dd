"""What the longest way through a file with exits takes, over the file of the same network without them.

    python -m tests.benchmarks.full_path

Two exits, placed by time; their thresholds never let anybody leave, so that every head and every `If` is paid
for in vain. Weights are random, which changes no time. Usual protocol: ONNX Runtime, one thread, batch 1.
Expected before the first run: at most 1.05, but more on networks of a tenth of a millisecond, whose heads are
a good part of them. Writes results/full_path.md.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tests.support.noise import Noise
from workers.base import (
    Artefact,
    Bench,
    Candidate,
    Context,
    ExitPlan,
    ImagePreprocessing,
    Measurement,
    ModelSpec,
)
from workers.deploy.export import export_onnx, export_segments
from workers.deploy.one_file import compose_one_file
from workers.exits.heads import heads_for
from workers.exits.placing import place_by_number
from workers.exits.scores import never
from workers.exits.staging import add_exits
from workers.graph.students import known
from workers.host import host_facts
from workers.measures.latency import Latency
from workers.places import USUAL, choose

RESULT = Path(__file__).parent / "results" / "full_path.md"
NETWORKS = (
    ("cifar_resnet8", 28),
    ("cifar_resnet56", 32),
    ("mobilenet_v3_small", 224),
    ("resnet18", 64),
    ("resnet18", 224),
    ("efficientnet_b0", 224),
)
EXITS, SECONDS = 2, 8.0
HEADER = (
    "| Network | Side | Exits after | Whole network | Heads | Full path (95 %) |\n|:--|--:|:--|--:|--:|--:|"
)


def main() -> None:
    torch.set_num_threads(1)
    place = choose(USUAL, 1).steps
    rows = []
    for name, side in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append("| " + " | ".join(measured(name, side, Path(folder))) + " |")
            print(rows[-1], flush=True)
    told = (
        f"`python -m tests.benchmarks.full_path`; {host_facts().cpu}, {place.target.software}, one thread, "
        "batch 1. Heads: what they take, timed alone when the exits were placed."
    )
    title = "# The longest way through a file with exits, as a multiple of the network without them"
    RESULT.write_text("\n".join([title, "", told + " Goal: 1.05.", "", HEADER, *rows, ""]))


def measured(name: str, side: int, folder: Path) -> Iterator[str]:
    """The cells of its row."""
    preprocessing = ImagePreprocessing(channels=3, height=side, width=side, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = ModelSpec(name=name, sha256="0" * 64, architecture=name, classes=10, preprocessing=preprocessing)
    model, place = Candidate(spec, known(name, spec, seed=0)), choose(USUAL, 1).steps
    assert model.graph is not None
    context = Context(
        data=Noise(preprocessing.shape), original=model, runtime=place.runtime, target=place.target,
        device=torch.device("cpu"), seed=0, scratch=folder, tell=lambda _: None,
    )  # fmt: skip
    places = place_by_number(model.graph, EXITS, "auto", context)
    heads = heads_for(model.graph, [found.name for found in places], spec, "auto", 0)
    plan = ExitPlan(
        cuts=tuple(heads), score="probability", thresholds=(never("probability", EXITS),) * len(places)
    )
    staged = Candidate(spec, add_exits(model.graph, heads), exits=plan)
    alone, full = folder / "alone.onnx", folder / "full.onnx"
    export_onnx(model, alone, ())
    compose_one_file(export_segments(staged, full), plan, full, spec, ())
    bench = Bench(context.data, place.runtime, place.target, lambda _: None)
    (found,) = Latency(seconds=SECONDS).compare([([Artefact(alone, model), Artefact(full, staged)], bench)])
    whole, ratio = number(found[alone], "latency_p50"), number(found[full], "latency_ratio")
    yield from (name, f"{side}", ", ".join(f"{place.share:.0%}" for place in places))
    yield f"{whole.value:.3g} ms"
    yield f"{sum(place.head for place in places):.1%}"
    yield f"{ratio.value:.3f} ({ratio.low:.3f}–{ratio.high:.3f})"


def number(measured: Sequence[Measurement], name: str) -> Measurement:
    return next(one for one in measured if one.name == name)


if __name__ == "__main__":
    main()
