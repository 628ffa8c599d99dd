"""The networks that a table is made of: a model at several widths, in float32 and in fewer bits, as files.

What they answer does not matter: the weights are cut anywhere.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch.fx import GraphModule

from workers.base import Candidate, ModelSpec, Place, Progress
from workers.deploy.export import export_onnx
from workers.errors import StepFailed
from workers.factors.decompose import can_decompose, decompose, full_ranks
from workers.graph.layer_roles import LAYERS
from workers.graph.replacing import replace_layer, replaceable_layers
from workers.prediction.plan import ROUND_TO, Plan
from workers.prediction.resizing import resized
from workers.prediction.rewriting import OTHERS, STATIC, rewrite
from workers.pruning.choosing import choose
from workers.pruning.following import copied
from workers.pruning.groups import CannotFollow, Group, cut
from workers.pruning.search import sample_input

#: Shares of the channels that go; the most telling ones first, for slow models stop early.
UNIFORM = (0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)
#: Networks whose groups are each as wide as chance has it, within these shares.
RANDOM, CHANCE = 6, (0.1, 1.1)
#: So many of them are timed in int8, too.
INT8 = 6
#: Shares of the channels that go where widths are not rounded.
ODD = (0.45, 0.2, 0.7)
#: Shares of the full rank.
THIN = (0.5, 0.25, 0.75)
#: After this many seconds of building no further widths are begun, once there are `LEAST`.
BUDGET_S, LEAST = 240.0, 4

Tell = Callable[[Progress], None]
Left = dict[str, float]


@dataclass
class Networks:
    """Writes files into `folder`. graphs: what became of each that was cut. notes: what could not be made."""

    spec: ModelSpec
    graph: GraphModule
    plan: Plan
    groups: Sequence[Group]
    place: Place
    folder: Path
    tell: Tell
    notes: list[str] = field(default_factory=list)
    graphs: dict[Path, GraphModule] = field(default_factory=dict)
    base: ModelProto | None = None

    def narrowed(self) -> dict[Path, Left]:
        """The model as it is first."""
        started = time.monotonic()
        found: dict[Path, Left] = {}
        for number, dropped in enumerate([{}, *_cuts(self.groups)]):
            self.tell(Progress(f"building networks of other widths: {number + 1}", 0.02 * number))
            left = self._left(dropped)
            if left in found.values():
                continue
            if number > LEAST and time.monotonic() - started > BUDGET_S:
                self.notes.append("Fewer widths than usual were timed: building them takes long.")
                break
            file = self.folder / f"{number}.onnx"
            if self._cut(dropped, file):
                found[file] = left
        return found

    def _left(self, dropped: Mapping[str, Sequence[int]]) -> Left:
        return {g.root: 1 - len(dropped.get(g.root, ())) / g.width for g in self.groups}

    def _cut(self, dropped: dict[str, list[int]], file: Path) -> bool:
        """False where the network cannot be cut so."""
        graph = copied(self.graph)
        try:
            cut(graph, sample_input(self.spec, 0), dropped)
        except CannotFollow:
            return False
        self._write_like(graph, file)
        self.base = self.base or onnx.load(file)
        self.graphs[file] = graph
        return True

    def _write_like(self, graph: GraphModule, file: Path) -> None:
        """Without exporting it, where the file of the model as it is can be changed."""
        if self.base is None:
            return self._write(graph, file)
        names = [layer.name for layer in self.plan.layers]
        onnx.save(resized(self.base, self.graph, graph, names), file)
        if not self._runs(file):  # sizes that do not fit
            self._write(graph, file)
        return None

    def _runs(self, file: Path) -> bool:
        shape = (self.place.target.batch, *self.spec.preprocessing.shape)
        try:
            self.place.runtime.open(file, threads=1).run(np.zeros(shape, np.float32))
        except Exception:  # noqa: BLE001 - a runtime ends with errors of every kind
            return False
        return True

    def odd(self) -> dict[Path, Left]:
        found: dict[Path, Left] = {}
        for share in ODD:
            dropped = choose(self.groups, share, "uniform", 1)
            file, left = self.folder / f"odd-{share}.onnx", self._left(dropped)
            if self.plan.has_odd_widths(left) and self._cut(dropped, file):
                found[file] = left
        return found

    def in_int8(self, files: Mapping[Path, Left]) -> dict[Path, Left]:
        found: dict[Path, Left] = {}
        for file, left in list(files.items())[:INT8]:
            self.tell(Progress("building them in int8", 0.3))
            written = file.with_suffix(".int8.onnx")
            try:
                rewrite(file, written, STATIC, self.spec, self.folder / "float")
            except StepFailed as error:
                self.notes.append(f"There are no times in int8: {error.what}")
                return {}
            found[written] = left
        return found

    def in_others(self, files: Sequence[Path]) -> dict[Path, tuple[str, Path]]:
        """In the other modes of quantization: mode, and the same in float32. A mode that fails has none."""
        found: dict[Path, tuple[str, Path]] = {}
        for mode in OTHERS:
            self.tell(Progress(f"building them in {mode}", 0.32))
            for file in files:
                written = file.with_suffix(f".{mode}.onnx")
                try:
                    rewrite(file, written, mode, self.spec, self.folder / "float")
                except Exception as error:  # noqa: BLE001 - the writers end with errors of every kind
                    self.notes.append(f"There are no times in {mode}: {type(error).__name__}.")
                    break
                if self._runs(written):
                    found[written] = mode, file
        return found

    def thin(self) -> dict[Path, float]:
        """Every layer factorised that can be."""
        found: dict[Path, float] = {}
        for share in THIN:
            self.tell(Progress("building it with thin layers", 0.35))
            graph = copied(self.graph)
            for name, layer in replaceable_layers(graph).items():
                if isinstance(layer, LAYERS) and can_decompose(layer):
                    full = full_ranks(layer)
                    ranks = tuple(min(rank, math.ceil(share * rank / ROUND_TO) * ROUND_TO) for rank in full)
                    if ranks != full:
                        replace_layer(graph, name, decompose(layer, ranks))
            file = self.folder / f"thin-{share}.onnx"
            self._write(graph, file)
            found[file] = share
        return found

    def _write(self, graph: GraphModule, file: Path) -> None:
        export_onnx(Candidate(self.spec, graph.eval()), file, ())


def _cuts(groups: Sequence[Group]) -> Iterator[dict[str, list[int]]]:
    """For the root of every group the channels that go: the same share everywhere, then each by chance."""
    chance = np.random.default_rng(0)
    for share in UNIFORM[:LEAST]:
        yield choose(groups, share, "uniform", ROUND_TO)
    for _ in range(RANDOM):
        yield {group.root: _some(group, chance.uniform(*CHANCE)) for group in groups}
    for share in UNIFORM[LEAST:]:
        yield choose(groups, share, "uniform", ROUND_TO)


def _some(group: Group, share: float) -> list[int]:
    unit = math.lcm(group.parts, ROUND_TO)
    kept = min(group.width, max(unit, round(share * group.width / unit) * unit))
    return group.channels(torch.arange(kept // group.parts, group.width // group.parts))
