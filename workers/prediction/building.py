"""Build and time networks of a model at several widths, in float32 and int8, once per model and target.

What they answer does not matter: the weights are cut anywhere, ranges are made up, inputs are noise (plain
networks take as long for any). Everything is timed as results are, under the host's lock.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch.fx import GraphModule

from workers.base import Candidate, Place, Progress
from workers.deploy.export import export_onnx
from workers.errors import StepFailed
from workers.factors.decompose import can_decompose, decompose, full_ranks
from workers.graph.layer_roles import LAYERS
from workers.graph.replacing import replace_layer, replaceable_layers
from workers.prediction.plan import ROUND_TO, Plan
from workers.prediction.reading import read_plan
from workers.prediction.resizing import resized
from workers.prediction.stepping import step_seconds
from workers.prediction.table import Row, Step, Table, ThinRow
from workers.prediction.timing import Timing
from workers.pruning.choosing import choose
from workers.pruning.following import copied
from workers.pruning.groups import CannotFollow, Group, cut
from workers.pruning.search import sample_input
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_of_host
from workers.quantization.static import float_tensors
from workers.quantization.writing import NARROW, static
from workers.stages import key_of, place_of

#: Shares of the channels that go; the most telling ones first, for slow models stop early.
UNIFORM = (0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)
#: Networks whose groups are each as wide as chance has it, within these shares.
RANDOM, CHANCE = 6, (0.1, 1.1)
#: So many of them are timed in int8, too.
INT8 = 6
#: Shares of the full rank.
THIN = (0.5, 0.25, 0.75)
#: After this many seconds of building no further widths are begun, once there are `LEAST`.
BUDGET_S, LEAST = 240.0, 4
MADE_UP_RANGE = (-3.0, 3.0)

Tell = Callable[[Progress], None]
Left = dict[str, float]


def build(
    model: Candidate, key: str, place: Place, device: torch.device, folder: Path, kept: Path, tell: Tell
) -> Table:
    """Raises StepFailed for an ONNX file, which has no widths to change.

    key: of the table, see `table_key`. folder: for files, empty. kept: where times are noted as they are
    taken, so that it can go on after a kill. tell: hears of every network, and may raise to break off.
    """
    if model.graph is None:
        raise StepFailed("predictor", "an ONNX file has no layers that could change.", "Bring it as a .pt2.")
    plan, groups = read_plan(model.graph, model.spec)
    return _Building(model, model.graph, plan, groups, place, folder, kept, tell).table(key, device)


def table_key(model: Candidate, place: Place, device: torch.device) -> str:
    """Of everything that a table depends on: layers and their sizes, not what they have learnt."""
    assert model.graph is not None
    layers = [(name, str(module)) for name, module in model.graph.named_modules() if name]
    sizes = [(name, list(tensor.shape)) for name, tensor in model.graph.named_parameters()]
    what = [layers, sizes, str(model.graph.code), model.spec.preprocessing.shape, str(device)]
    return key_of(what, place_of(place.target, place.runtime))


@dataclass
class _Building:
    model: Candidate
    graph: GraphModule
    plan: Plan
    groups: Sequence[Group]
    place: Place
    folder: Path
    kept: Path
    tell: Tell
    notes: list[str] = field(default_factory=list)
    graphs: dict[Path, GraphModule] = field(default_factory=dict)

    def table(self, key: str, device: torch.device) -> Table:
        files = self._narrowed()
        in_int8, thin = self._quantized(files), self._thin()
        names = [layer.name for layer in self.plan.layers]
        took = Timing(self.place, self.model.spec, names, self.tell, self.kept).of([*files, *in_int8, *thin])
        self.tell(Progress("timing steps of training", 0.95))
        return Table(
            key=key,
            target=self.place.target,
            plan=self.plan,
            float32=tuple(Row(left=left, **took[file]) for file, left in files.items()),
            int8=tuple(Row(left=left, **took[file]) for file, left in in_int8.items()),
            thin=tuple(ThinRow(share=share, layers=took[file]["layers"]) for file, share in thin.items()),
            steps=tuple(self._steps(files, device)),
            device=device.type,
            notes=tuple(self.notes),
        )

    def _steps(self, files: Mapping[Path, Left], device: torch.device) -> Iterator[Step]:
        """Of the model as it is, and of one about half as large."""
        half = min(files, key=lambda file: abs(self.plan.macs_left(files[file]) - 0.5))
        for file in dict.fromkeys((next(iter(files)), half)):
            update, look = step_seconds(self.graphs[file], self.model.spec, device, self.plan.macs)
            yield Step(macs=self.plan.macs_left(files[file]), update=update, look=look)

    def _narrowed(self) -> dict[Path, Left]:
        """The model as it is first."""
        sample, started = sample_input(self.model.spec, 0), time.monotonic()
        found: dict[Path, Left] = {}
        base: Path | None = None
        for number, dropped in enumerate([{}, *_cuts(self.groups)]):
            self.tell(Progress(f"building networks of other widths: {number + 1}", 0.02 * number))
            left = {g.root: 1 - len(dropped.get(g.root, ())) / g.width for g in self.groups}
            if left in found.values():
                continue
            if number > LEAST and time.monotonic() - started > BUDGET_S:
                self.notes.append("Fewer widths than usual were timed: building them takes long.")
                break
            graph, file = copied(self.graph), self.folder / f"{number}.onnx"
            try:
                cut(graph, sample, dropped)
            except CannotFollow:
                continue
            self._write_like(graph, file, base)
            base = base or file
            self.graphs[file], found[file] = graph, left
        return found

    def _write_like(self, graph: GraphModule, file: Path, base: Path | None) -> None:
        """Without exporting it, where the file of the model as it is can be changed."""
        if base is None:
            return self._write(graph, file)
        onnx.save(resized(base, self.graph, graph), file)
        shape = (self.place.target.batch, *self.model.spec.preprocessing.shape)
        try:
            self.place.runtime.open(file, threads=1).run(np.zeros(shape, np.float32))
        except Exception:  # noqa: BLE001 - sizes that do not fit end the runtime with errors of every kind
            self._write(graph, file)
        return None

    def _quantized(self, files: Mapping[Path, Left]) -> dict[Path, Left]:
        found: dict[Path, Left] = {}
        for file, left in list(files.items())[:INT8]:
            self.tell(Progress("building them in int8", 0.3))
            written = file.with_suffix(".int8.onnx")
            try:
                self._quantize(file, written)
            except StepFailed as error:
                self.notes.append(f"There are no times in int8: {error.what}")
                return {}
            found[written] = left
        return found

    def _quantize(self, file: Path, written: Path) -> None:
        _, network = float_network(Candidate(self.model.spec, onnx=file), (), self.folder / "float")
        ranges = dict.fromkeys(float_tensors(network), MADE_UP_RANGE)
        onnx.save(static(network, ranges, scheme_of_host(), NARROW)(frozenset()), written)

    def _thin(self) -> dict[Path, float]:
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
        export_onnx(Candidate(self.model.spec, graph.eval()), file, ())


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
