"""Where exits stand: at shares of the time that the exported model takes on the target."""

import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.utils import Extractor
from torch.fx import GraphModule, Node

from workers.base import INPUT_NAME, OUTPUT_NAME, Context, Progress, Session
from workers.errors import StepFailed
from workers.graph.cutting import block_ends, cut_points, input_of, output_of, part
from workers.graph.to_onnx import to_onnx
from workers.host import pinned
from workers.turns import measuring_turn

#: Shares of the model's latency by the number of exits, as in METHODS: 30/55/80 %.
SHARES: Mapping[int, tuple[float, ...]] = {
    1: (0.5,),
    2: (0.35, 0.65),
    3: (0.3, 0.55, 0.8),
    4: (0.25, 0.45, 0.65, 0.85),
}
#: Exits that are nearer to each other, or to an end of the model, cost a head and save nothing.
MIN_GAP = 0.1
SITTINGS, SECONDS, MIN_ROUNDS = 4, 0.3, 5
#: What the machine can do when nobody interrupts (see `workers.measures.latency`).
QUANTILE = 0.1


@dataclass(frozen=True)
class Place:
    """A cut, and the share of the model's latency that has passed when it is reached, heads left out."""

    cut: Node
    share: float


def place_by_number(graph: GraphModule, number: int, context: Context) -> list[Place]:
    """Cuts between blocks, nearest to SHARES; fewer than asked where they would stand closer than MIN_GAP.

    Raises StepFailed when there is no place at all.
    """
    points = block_ends(graph, cut_points(graph, _shape(context)))
    times = PrefixTimes(graph, points, context)
    found: list[Place] = []
    for wanted in SHARES[number]:
        places = [Place(points[i], times.share(points[i])) for i in _around(points, wanted, times)]
        free = [p for p in places if _has_room(p, found)]
        if free:
            found.append(min(free, key=lambda place: abs(place.share - wanted)))
    if not found:
        raise StepFailed(
            "early_exit",
            f"no cut of the model lies between {MIN_GAP:.0%} and {1 - MIN_GAP:.0%} of its latency "
            f"({len(points)} were looked at).",
            "Name the cuts in `exits`, or leave this step out.",
        )
    return found


def place_by_name(graph: GraphModule, names: Sequence[str], context: Context) -> list[Place]:
    """Any cut points, in the graph's order. Raises StepFailed for a name that is none."""
    points = {node.name: node for node in cut_points(graph, _shape(context))}
    for name in names:
        if name not in points:
            raise StepFailed(
                "early_exit",
                f"{name!r} is no place where this model can be cut.",
                f"Choose among: {', '.join(points)}.",
            )
    chosen = [node for name, node in points.items() if name in names]
    times = PrefixTimes(graph, chosen, context)
    return [Place(node, times.share(node)) for node in chosen]


class PrefixTimes:
    """How much of the model's latency has passed at each of these cut points; timed when it is asked for.

    The model is exported once; what leads to a cut is taken out of that file and timed in turns with the
    whole.
    """

    def __init__(self, graph: GraphModule, points: Sequence[Node], context: Context) -> None:
        self.context = context
        self.names = {node: f"cut_{index}" for index, node in enumerate(points)}
        whole = part(graph, input_of(graph), [*points, output_of(graph)], _shape(context))
        model = to_onnx(whole, _shape(context), results=[*self.names.values(), OUTPUT_NAME])
        self.extractor = Extractor(model)
        self.known: dict[Node, float] = {}
        inputs, _ = next(iter(context.data.batches("validation", context.target.batch)))
        self.inputs: np.ndarray = inputs.numpy()

    def share(self, point: Node) -> float:
        """0-1, from the 10th percentiles."""
        if point not in self.known:
            self.context.tell(Progress(f"timing the model up to {point.name}", 0.0))
            self.known[point] = self._timed(self.names[point])
        return self.known[point]

    def _timed(self, name: str) -> float:
        with tempfile.TemporaryDirectory(dir=self.context.scratch) as folder:
            files = [Path(folder) / f"{output}.onnx" for output in (name, OUTPUT_NAME)]
            for file in files:
                onnx.save(self.extractor.extract_model([INPUT_NAME], [file.stem]), str(file))
            with measuring_turn(), pinned(self.context.target.threads):
                calls = np.concatenate([self._sit(files) for _ in range(SITTINGS)])
        prefix, whole = np.quantile(calls, QUANTILE, axis=0)
        return float(prefix / whole)

    def _sit(self, files: Sequence[Path]) -> np.ndarray:
        """(rounds, files) seconds; where weights lie in memory differs from sitting to sitting."""
        threads = self.context.target.threads
        sessions = [self.context.runtime.open(file, threads=threads) for file in files]
        calls: list[list[float]] = []
        end = time.perf_counter() + SECONDS / SITTINGS
        while len(calls) < MIN_ROUNDS or time.perf_counter() < end:
            calls.append([self._call(session) for session in sessions])
        return np.array(calls)

    def _call(self, session: Session) -> float:
        """The first call brings the weights into the cache."""
        session.run(self.inputs)
        start = time.perf_counter()
        session.run(self.inputs)
        return time.perf_counter() - start


def _around(points: Sequence[Node], wanted: float, times: PrefixTimes) -> range:
    """The points before and after the wanted share; latency grows from point to point."""
    index = bisect_left(points, wanted, key=times.share)
    return range(max(0, index - 1), min(len(points), index + 1))


def _has_room(place: Place, found: Sequence[Place]) -> bool:
    before = found[-1].share if found else 0.0
    return before + MIN_GAP <= place.share <= 1 - MIN_GAP


def _shape(context: Context) -> tuple[int, ...]:
    return context.original.spec.preprocessing.shape
