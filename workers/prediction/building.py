"""Build and time networks of a model at several widths, in float32 and int8, once per model and target.

Inputs are noise (plain networks take as long for any). Everything is timed as results are, under the host's
lock.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from workers.base import Candidate, Place, Progress
from workers.errors import StepFailed
from workers.prediction.networks import Left, Networks, Tell
from workers.prediction.plan import Plan
from workers.prediction.reading import read_plan
from workers.prediction.stepping import step_seconds
from workers.prediction.table import Row, Step, Table, ThinRow
from workers.prediction.timing import Timing
from workers.stages import key_of, place_of


def build(model: Candidate, key: str, place: Place, device: torch.device, folder: Path, tell: Tell) -> Table:
    """Raises StepFailed for an ONNX file, which has no widths to change.

    key: of the table, see `table_key`. folder: where networks and times are kept as they are made, so that
    it can go on after it was broken off; of this key alone. tell: hears of every network, and may raise to
    break off.
    """
    plan, groups = read_plan(graph := _graph_of(model), model.spec)
    networks = Networks(model.spec, graph, groups, place, folder, tell)
    files = networks.narrowed()
    in_int8, thin = networks.in_int8(files), networks.thin()
    names = [layer.name for layer in plan.layers]
    timing = Timing(place, model.spec, names, tell, folder / "times.json")
    took = timing.of([*files, *in_int8, *thin])
    tell(Progress("timing steps of training", 0.95))
    return Table(
        key=key,
        target=place.target,
        plan=plan,
        float32=tuple(Row(left=left, **took[file]) for file, left in files.items()),
        int8=tuple(Row(left=left, **took[file]) for file, left in in_int8.items()),
        thin=tuple(ThinRow(share=share, layers=took[file]["layers"]) for file, share in thin.items()),
        steps=tuple(_steps(plan, networks, files, device)),
        device=device.type,
        notes=tuple(networks.notes),
    )


def table_key(model: Candidate, place: Place, device: torch.device) -> str:
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


def _steps(
    plan: Plan, networks: Networks, files: Mapping[Path, Left], device: torch.device
) -> Iterator[Step]:
    """Of the model as it is, and of one about half as large."""
    half = min(files, key=lambda file: abs(plan.macs_left(files[file]) - 0.5))
    for file in dict.fromkeys((next(iter(files)), half)):
        update, look = step_seconds(networks.cut(file), networks.spec, device, plan.macs)
        yield Step(macs=plan.macs_left(files[file]), update=update, look=look)
