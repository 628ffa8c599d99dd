"""Build and time networks of a model at several widths and in fewer bits, once per model and target.

Inputs are noise (plain networks take as long for any). Everything is timed as results are, under the host's
lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from workers.base import Candidate, Place, Progress
from workers.errors import StepFailed
from workers.prediction.networks import Left, Networks, Tell
from workers.prediction.plan import Plan
from workers.prediction.reading import read_plan
from workers.prediction.stepping import rounding, step_seconds
from workers.prediction.table import Row, Step, Table, ThinRow, Written
from workers.prediction.timing import Timing, Took
from workers.stages import key_of, place_of


def build(
    model: Candidate, key: str, place: Place, device: torch.device | None, folder: Path, tell: Tell
) -> Table:
    """Raises StepFailed for an ONNX file, which has no widths to change.

    key: of the table, see `table_key`. device: that trains; None where nothing is trained. folder: where
    networks and times are kept as they are made, so that it can go on after it was broken off; of this key
    alone. tell: hears of every network, and may raise to break off.
    """
    plan, groups = read_plan(graph := _graph_of(model), model.spec)
    networks = Networks(model.spec, graph, plan, groups, place, folder, tell)
    names = [layer.name for layer in plan.layers]
    timing = Timing(place, model.spec, names, tell, folder / "times.json")
    return _Building(graph, plan, networks, timing).table(key, device)


def table_key(model: Candidate, place: Place, device: torch.device | None) -> str:
    """Of everything that its times depend on: layers and their sizes, not what they have learnt."""
    graph = _graph_of(model)
    layers = [(name, str(module)) for name, module in graph.named_modules() if name]
    sizes = [(name, list(tensor.shape)) for name, tensor in graph.named_parameters()]
    what = [layers, sizes, str(graph.code), model.spec.preprocessing.shape, str(device)]
    return key_of(what, place_of(place.target, place.runtime))


def renewed(table: Table, model: Candidate) -> Table | None:
    """The times of a model with the same key, and of this one which channels are the weakest.

    None where channels hang together otherwise: other weights may hide a wrong cut.
    """
    plan, _ = read_plan(_graph_of(model), model.spec)
    return table.model_copy(update={"plan": plan}) if _couplings(plan) == _couplings(table.plan) else None


def _couplings(plan: Plan) -> list[Any]:
    layers = [(layer.name, layer.group, layer.reads) for layer in plan.layers]
    return [layers, [(root, group.width, group.parts) for root, group in sorted(plan.groups.items())]]


def _graph_of(model: Candidate) -> GraphModule:
    if model.graph is None:
        raise StepFailed("predictor", "an ONNX file has no layers that could change.", "Bring it as a .pt2.")
    return model.graph


@dataclass
class _Building:
    graph: GraphModule
    plan: Plan
    networks: Networks
    timing: Timing

    def table(self, key: str, device: torch.device | None) -> Table:
        made = self.networks
        files = made.narrowed()
        two = self._two(files)
        in_int8, odd, written, thin = made.in_int8(files), made.odd(), made.in_others(two), made.thin()
        took = self.timing.of([*files, *in_int8, *odd, *written, *thin])
        float32, int8, uneven = (_rows(some, two[0], took) for some in (files, in_int8, odd))
        steps, rounded = self._training({file: files[file] for file in two}, device) if device else ((), None)
        return Table(
            key=key,
            target=self.timing.place.target,
            plan=self.plan,
            float32=float32,
            int8=int8,
            odd=uneven,
            written=tuple(
                self._written(mode, files[plain], plain, file, took)
                for file, (mode, plain) in written.items()
            ),
            thin=tuple(ThinRow(share=share, layers=took[file]["layers"]) for file, share in thin.items()),
            steps=steps,
            rounded=rounded,
            device=device.type if device else "cpu",
            notes=tuple(made.notes),
        )

    def _two(self, files: Mapping[Path, Left]) -> list[Path]:
        """The model as it is, and one about half as large."""
        half = min(files, key=lambda file: abs(self.plan.macs_left(files[file]) - 0.5))
        return list(dict.fromkeys((next(iter(files)), half)))

    def _written(self, mode: str, left: Left, plain: Path, file: Path, took: Mapping[Path, Took]) -> Written:
        ratio = took[file]["ratio"] / took[plain]["ratio"]
        return Written(mode=mode, macs=self.plan.macs_left(left), ratio=ratio, size=_size(file, plain))

    def _training(
        self, files: Mapping[Path, Left], device: torch.device
    ) -> tuple[tuple[Step, ...], float | None]:
        """Steps of training, and by how much an update takes longer with the rounding of int8."""
        self.networks.tell(Progress("timing steps of training", 0.95))
        steps = tuple(self._step(file, left, device) for file, left in files.items())
        rounded = self._rounded(device)
        return steps, rounded and rounded / steps[0].update

    def _step(self, file: Path, left: Left, device: torch.device) -> Step:
        graph, spec = self.networks.cut(file), self.timing.spec
        update, look = step_seconds(graph, spec, device, self.plan.macs)
        return Step(macs=self.plan.macs_left(left), update=update, look=look)

    def _rounded(self, device: torch.device) -> float | None:
        """Seconds of an update with the rounding of int8."""
        try:
            return step_seconds(rounding(self.graph), self.timing.spec, device, self.plan.macs)[0]
        except Exception as error:  # noqa: BLE001 - an odd network must not cost the whole table
            self.networks.notes.append(f"Training with rounding was not timed: {type(error).__name__}.")
            return None


def _rows(files: Mapping[Path, Left], first: Path, took: Mapping[Path, Took]) -> tuple[Row, ...]:
    return tuple(Row(left=left, size=_size(file, first), **took[file]) for file, left in files.items())


def _size(file: Path, other: Path) -> float:
    return file.stat().st_size / other.stat().st_size
