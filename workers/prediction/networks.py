"""The networks that a table is made of: a model at several widths, in float32 and in fewer bits, as files.

What they answer does not matter: the weights are cut anywhere.
"""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
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
from workers.writing import written_whole

#: Shares of the channels that go; the most telling ones first, for slow models stop early.
UNIFORM = (0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)
#: Networks whose groups are each as wide as chance has it, within these shares.
RANDOM, CHANCE = 6, (0.1, 1.1)
#: So many of them are timed in int8, too.
INT8 = 6
#: Shares of the channels that go where widths are not rounded.
ODD = (0.45, 0.2, 0.7)
#: Shares of the full rank.
THIN = (0.5, 0.25, 0.75, 0.125)
#: After this many seconds of building no further widths are begun, once there are `LEAST`.
BUDGET_S, LEAST = 240.0, 4

Tell = Callable[[Progress], None]
Left = dict[str, float]
#: For the root of every group the channels that go.
Dropped = Mapping[str, Sequence[int]]


@dataclass
class Networks:
    """Writes files into `folder`. What an earlier attempt left there is taken as it is: names tell what is in
    a file. dropped: channels that each lacks. notes: what could not be made.
    """

    spec: ModelSpec
    graph: GraphModule
    plan: Plan
    groups: Sequence[Group]
    place: Place
    folder: Path
    tell: Tell
    notes: list[str] = field(default_factory=list)
    dropped: dict[Path, Dropped] = field(default_factory=dict)

    def narrowed(self) -> dict[Path, Left]:
        """The model as it is first."""
        started = time.monotonic()
        found: dict[Path, Left] = {}
        for number, dropped in enumerate([{}, *_cuts(self.groups)]):
            self.tell(Progress(f"building networks of other widths: {number + 1}", 0.02 * number))
            left = self._left(dropped)
            if left in found.values():
                continue
            file = self.folder / f"width-{_digest(left)}.onnx"
            late = number > LEAST and time.monotonic() - started > BUDGET_S
            if late and not file.exists():
                self.notes.append("Fewer widths than usual were timed: building them takes long.")
                break
            if self._cut_as(dropped, file):
                found[file] = left
        return found

    def odd(self) -> dict[Path, Left]:
        """Of widths that are not rounded."""
        found: dict[Path, Left] = {}
        for share in ODD:
            self.tell(Progress("building networks of odd widths", 0.28))
            dropped = choose(self.groups, share, "uniform", 1)
            left = self._left(dropped)
            file = self.folder / f"odd-{_digest(left)}.onnx"
            if self.plan.has_odd_widths(left) and self._cut_as(dropped, file):
                found[file] = left
        return found

    def cut(self, file: Path) -> GraphModule:
        """The network of one of these files."""
        return self._cut(self.dropped[file])

    def _left(self, dropped: Dropped) -> Left:
        return {g.root: 1 - len(dropped.get(g.root, ())) / g.width for g in self.groups}

    def _cut(self, dropped: Dropped) -> GraphModule:
        """Raises CannotFollow."""
        graph = copied(self.graph)
        if any(dropped.values()):
            cut(graph, sample_input(self.spec, 0), dropped)
        return graph

    def _cut_as(self, dropped: Dropped, file: Path) -> bool:
        """False where the network cannot be cut so."""
        if not file.exists():
            try:
                graph = self._cut(dropped)
            except CannotFollow:
                return False
            with written_whole(file) as partial:
                self._write_like(graph, partial)
        self.dropped[file] = dropped
        return True

    def _write_like(self, graph: GraphModule, file: Path) -> None:
        """Without exporting it, where the file of the model as it is can be changed."""
        first = next(iter(self.dropped), None)
        if first is not None:
            onnx.save(resized(first, self.graph, graph), file)
        if first is None or not self._runs(file):  # sizes that do not fit
            self._write(graph, file)

    def _runs(self, file: Path) -> bool:
        shape = (self.place.target.batch, *self.spec.preprocessing.shape)
        try:
            self.place.runtime.open(file, threads=1).run(np.zeros(shape, np.float32))
        except Exception:  # noqa: BLE001 - a runtime ends with errors of every kind
            return False
        return True

    def in_int8(self, files: Mapping[Path, Left]) -> dict[Path, Left]:
        found: dict[Path, Left] = {}
        for file, left in list(files.items())[:INT8]:
            self.tell(Progress("building them in int8", 0.3))
            written = file.with_suffix(".int8.onnx")
            try:
                self._rewrite(file, written, STATIC)
            except StepFailed as error:
                self.notes.append(f"There are no times in int8: {error.what}")
                return {}
            found[written] = left
        return found

    def in_others(self, files: Sequence[Path]) -> dict[Path, tuple[str, Path]]:
        """In the other modes of quantization: mode, and the same in float32. A mode that fails has none."""
        found: dict[Path, tuple[str, Path]] = {}
        for mode in OTHERS:
            for file in files:
                self.tell(Progress(f"building them in {mode}", 0.32))
                written = file.with_suffix(f".{mode}.onnx")
                try:
                    self._rewrite(file, written, mode)
                except Exception as error:  # noqa: BLE001 - the writers end with errors of every kind
                    self.notes.append(f"There are no times in {mode}: {type(error).__name__}.")
                    break
                if self._runs(written):
                    found[written] = mode, file
        return found

    def _rewrite(self, file: Path, written: Path, mode: str) -> None:
        """As `rewrite`; nothing where it is done."""
        if not written.exists():
            with tempfile.TemporaryDirectory() as scratch, written_whole(written) as partial:
                rewrite(file, partial, mode, self.spec, Path(scratch))

    def thin(self) -> dict[Path, float]:
        """Every layer factorised that can be."""
        found: dict[Path, float] = {}
        for share in THIN:
            self.tell(Progress("building it with thin layers", 0.35))
            file = self.folder / f"thin-{share}.onnx"
            if not file.exists():
                with written_whole(file) as partial:
                    self._write(self._factorised(share), partial)
            found[file] = share
        return found

    def _factorised(self, share: float) -> GraphModule:
        graph = copied(self.graph)
        for name, layer in replaceable_layers(graph).items():
            if isinstance(layer, LAYERS) and can_decompose(layer):
                full = full_ranks(layer)
                ranks = tuple(min(rank, math.ceil(share * rank / ROUND_TO) * ROUND_TO) for rank in full)
                if ranks != full:
                    replace_layer(graph, name, decompose(layer, ranks))
        return graph

    def _write(self, graph: GraphModule, file: Path) -> None:
        export_onnx(Candidate(self.spec, graph.eval()), file, ())


def _digest(left: Left) -> str:
    return hashlib.sha256(json.dumps(left, sort_keys=True).encode()).hexdigest()[:12]


def _cuts(groups: Sequence[Group]) -> Iterator[Dropped]:
    """The same share everywhere, then each by chance."""
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
