"""Where exits stand: at shares of the time that the exported model takes on the target, heads included."""

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx.utils import Extractor
from torch.fx import GraphModule, Node

from workers.base import INPUT_NAME, OUTPUT_NAME, Context, Frozen, Progress, Session
from workers.errors import StepFailed
from workers.exits.heads import HeadKind, heads_for
from workers.exits.staging import add_exits, ends_of
from workers.graph.cutting import block_ends, cut_points, input_of, part
from workers.graph.to_onnx import to_onnx
from workers.host import pinned
from workers.turns import measuring_turn

#: Shares of the model's latency by the number of exits, three as in METHODS. Two stand rather early: on
#: Fashion-MNIST, after the stem and stage 1 of a ResNet, they leave 0.22 of its mean latency, after stages 1
#: and 2 0.58, for as many right answers (tests/benchmarks/results/exits.md).
SHARES: Mapping[int, tuple[float, ...]] = {
    1: (0.5,),
    2: (0.25, 0.55),
    3: (0.3, 0.55, 0.8),
    4: (0.25, 0.45, 0.65, 0.85),
}
#: Exits whose answers come nearer to each other, or to the model's own, save nothing.
MIN_GAP = 0.1
SECONDS, MIN_ROUNDS = 1.0, 3
#: What the machine can do when nobody interrupts (see `workers.measures.latency`).
QUANTILE = 0.1


class Spot(Frozen):
    """Where an exit can stand. name: of the node that is cut. share: of the model's latency that has passed
    when it is reached, heads left out. head: what its own head takes on top, as a share of the same latency.
    """

    name: str
    share: float
    head: float

    @property
    def answered(self) -> float:
        """When this exit has answered, had it been the only one."""
        return self.share + self.head


def place_by_number(graph: GraphModule, number: int, kind: HeadKind, context: Context) -> list[Spot]:
    """Cuts between blocks that answer nearest to SHARES; fewer than asked where they would answer closer to
    each other than MIN_GAP.

    Raises StepFailed when there is no place at all.
    """
    spots = timed_block_ends(graph, kind, context)
    found = [spots[index] for index in spread([spot.answered for spot in spots], number)]
    if not found:
        raise StepFailed(
            "early_exit",
            f"no exit would answer before {1 - MIN_GAP:.0%} of its latency have passed ({len(spots)} places "
            "were looked at).",
            "Name the cuts in `exits`, or leave this step out.",
        )
    return found


def spread(answered: Sequence[float], number: int) -> list[int]:
    """Which of some spots `place_by_number` takes. answered: shares of the latency, first to last."""
    found: list[int] = []
    for wanted in SHARES[number]:
        least = answered[found[-1]] + MIN_GAP if found else 0.0
        free = [index for index, share in enumerate(answered) if least <= share <= 1 - MIN_GAP]
        if free:
            found.append(min(free, key=lambda index: abs(answered[index] - wanted)))
    return found


def place_by_name(graph: GraphModule, names: Sequence[str], kind: HeadKind, context: Context) -> list[Spot]:
    """Any cut points, in the graph's order. Raises StepFailed for a name that is none."""
    return timed_places(graph, named_points(graph, names, _shape(context)), kind, context)


def named_points(graph: GraphModule, names: Sequence[str], shape: tuple[int, ...]) -> list[Node]:
    """The nodes of these names, in the graph's order. Raises StepFailed for a name that is no cut point."""
    points = {node.name: node for node in cut_points(graph, shape)}
    for name in names:
        if name not in points:
            raise StepFailed(
                "early_exit",
                f"{name!r} is no place where this model can be cut.",
                f"Choose among: {', '.join(points)}.",
            )
    return [node for name, node in points.items() if name in names]


def timed_block_ends(graph: GraphModule, kind: HeadKind, context: Context) -> list[Spot]:
    """All cuts between blocks."""
    return timed_places(graph, block_ends(graph, cut_points(graph, _shape(context))), kind, context)


def timed_places(graph: GraphModule, points: Sequence[Node], kind: HeadKind, context: Context) -> list[Spot]:
    """All of these cut points. What lies between two of them is timed once, and so is every head: together
    that takes as long as the model itself, however many points there are.
    """
    if not points:
        return []
    context.tell(Progress("timing the blocks of the model", 0.0))
    seconds = _Rounds(_with_heads(graph, points, kind, context), len(points), context).seconds()
    blocks, heads = seconds[: len(points) + 1], seconds[len(points) + 1 :]
    shares = np.cumsum(blocks) / sum(blocks)
    return [
        Spot(name=point.name, share=float(share), head=head / sum(blocks))
        for point, share, head in zip(points, shares, heads, strict=False)
    ]


def _with_heads(
    graph: GraphModule, points: Sequence[Node], kind: HeadKind, context: Context
) -> onnx.ModelProto:
    """One ONNX model that gives every cut, every head's logits and the end, for the target's batch size."""
    shape, spec = _shape(context), context.original.spec
    staged = add_exits(graph, heads_for(graph, [point.name for point in points], spec, kind, context.seed))
    nodes = {node.name: node for node in staged.graph.nodes}
    *logits, end = ends_of(staged)
    cuts = [nodes[point.name] for point in points]
    whole = part(staged, input_of(staged), [*cuts, *logits, end], shape)
    names = [*_numbered("cut", points), *_numbered("head", points), OUTPUT_NAME]
    # With a known batch no part asks for the size of the input, so each of them stands for itself.
    return to_onnx(whole, shape, results=names, batch=context.target.batch)


class _Rounds:
    """Times the parts of a model one after another, each on what the one before it gave."""

    def __init__(self, model: onnx.ModelProto, points: int, context: Context) -> None:
        ends = _numbered("cut", range(points))
        self.extractor, self.context = Extractor(model), context
        #: What each part reads and gives; last the heads.
        self.parts = [
            (self._read_for(gives, {INPUT_NAME, *ends}), gives)
            for gives in [*ends, OUTPUT_NAME, *_numbered("head", range(points))]
        ]

    def _read_for(self, gives: str, known: set[str]) -> str:
        """The one known value that it is computed from."""
        nodes, seen, waiting = self.extractor.graph.node, set[str](), [gives]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.extractor.outmap and (name not in known or name == gives):
                waiting += nodes[self.extractor.outmap[name]].input
        (source,) = (seen & known) - {gives}
        return source

    def seconds(self) -> list[float]:
        """Of each part; the 10th percentile, without what an empty call takes, but never nothing."""
        inputs, _ = next(iter(self.context.data.batches("validation", self.context.target.batch)))
        with tempfile.TemporaryDirectory(dir=self.context.scratch) as folder:
            files = [self._written(Path(folder), *names) for names in self.parts]
            files.append(_empty(Path(folder), self.extractor.model))
            with measuring_turn(), pinned(self.context.target.threads):
                *sessions, empty = map(self._session, files)  # their threads stay on these cores
                self._round(sessions, empty, inputs.numpy())  # brings everything into memory
                rounds, end = list[list[float]](), time.perf_counter() + SECONDS
                while len(rounds) < MIN_ROUNDS or time.perf_counter() < end:
                    rounds.append(self._round(sessions, empty, inputs.numpy()))
        *parts, call = np.quantile(rounds, QUANTILE, axis=0)
        return [max(float(part - call), float(part) / 10) for part in parts]

    def _written(self, folder: Path, reads: str, gives: str) -> Path:
        file = folder / f"{gives}.onnx"
        onnx.save(self.extractor.extract_model([reads], [gives]), str(file))
        return file

    def _session(self, file: Path) -> Session:
        return self.context.runtime.open(file, threads=self.context.target.threads)

    def _round(self, sessions: Sequence[Session], empty: Session, inputs: np.ndarray) -> list[float]:
        given, seconds = {INPUT_NAME: inputs}, list[float]()
        for session, (reads, gives) in zip(sessions, self.parts, strict=True):
            start = time.perf_counter()
            given[gives] = session.run(given[reads])
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        empty.run(np.zeros(1, np.float32))
        return [*seconds, time.perf_counter() - start]


def _empty(folder: Path, like: onnx.ModelProto) -> Path:
    """A model that does nothing."""
    given, taken = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])
        for name in (INPUT_NAME, OUTPUT_NAME)
    )
    node = onnx.helper.make_node("Identity", [INPUT_NAME], [OUTPUT_NAME])
    graph = onnx.helper.make_graph([node], "empty", [given], [taken])
    model = onnx.helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
    onnx.save(model, str(folder / "empty.onnx"))
    return folder / "empty.onnx"


def _numbered(name: str, points: Iterable[object]) -> list[str]:
    return [f"{name}_{index}" for index, _ in enumerate(points)]


def _shape(context: Context) -> tuple[int, ...]:
    return context.original.spec.preprocessing.shape
