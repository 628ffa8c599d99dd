"""Other networks for the same task: narrower or shallower than a graph, or a known architecture.

Knows no training and no method.
"""

import copy
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.passes.shape_prop import ShapeProp

from workers.base import ModelSpec
from workers.errors import ParedownError, StepFailed
from workers.graph.architectures import build_new
from workers.graph.archive import read_archive, trace, write_archive
from workers.graph.deadline import deadline
from workers.graph.layer_roles import LAYERS, inner_layers, output_layers
from workers.graph.modules import to_modules
from workers.graph.program import as_written

GROUP_SEARCH_SECONDS = 60.0


def known(name: str, spec: ModelSpec, seed: int) -> GraphModule:
    """A known architecture with fresh weights, for the pictures and classes of ``spec``.

    Raises StepFailed when it cannot take such pictures.
    """
    shape = spec.preprocessing.shape
    try:
        model = build_new(name, classes=spec.classes, channels=shape[0], seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.pt2"
            write_archive(trace(model, spec.preprocessing), file)
            return to_modules(as_written(read_archive(file)), shape)
    except ParedownError:
        raise
    except Exception as error:  # an architecture says in many ways that a picture is too small
        raise StepFailed(
            f"architecture {name}",
            f"cannot take pictures of {shape[1]}x{shape[2]} ({type(error).__name__}: {str(error)[:120]}).",
            "Choose one that is made for this size, such as cifar_resnet20.",
        ) from error


def narrower(graph: GraphModule, spec: ModelSpec, *, width: float, round_to: int, seed: int) -> GraphModule:
    """The same layers with about ``width`` of their channels and fresh weights; the logits stay.

    Widths become multiples of ``round_to``, rounded up. Where channels cannot be followed through the
    network, only layers whose channels stay inside a block get narrower. Raises StepFailed when none does.
    """
    everything = [name for name, module in graph.named_modules() if isinstance(module, LAYERS)]
    inner, last = inner_layers(graph), output_layers(graph)
    for changing in (set(graph.modules()) - last, inner - last):
        ignored = [name for name in everything if graph.get_submodule(name) not in changing]
        try:
            student = _cut(graph, spec, 1 - width, round_to, ignored)
        except Exception:  # noqa: BLE001 - torch-pruning fails with errors of every kind
            continue
        if _parameters(student) < _parameters(graph):
            _forget(student, seed)
            return student.eval()
    raise StepFailed(
        "narrower student",
        f"no layer can become narrower at width={width:g} and round_to={round_to}.",
        "Lower one of them, or choose a shallower student or an architecture.",
    )


def _cut(graph: GraphModule, spec: ModelSpec, share: float, round_to: int, ignored: list[str]) -> GraphModule:
    """A copy whose layers lost channels; which ones does not matter, for the weights go as well."""
    student = copy.deepcopy(graph).eval().requires_grad_(True)  # else nothing can be followed
    sample = torch.zeros(2, *spec.preprocessing.shape)
    with warnings.catch_warnings(), deadline(GROUP_SEARCH_SECONDS):
        warnings.simplefilter("ignore")  # bare parameters such as layer scales are followed as we want
        tp.pruner.BasePruner(
            student,
            sample,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            round_to=round_to,
            ignored_layers=[student.get_submodule(name) for name in ignored],
            root_module_types=list(LAYERS),
        ).step()
    with torch.no_grad():
        logits: Tensor = student(sample)
    if logits.shape != (2, spec.classes):
        raise ValueError("the logits were cut")
    return student


def _forget(graph: GraphModule, seed: int) -> None:
    """Fresh weights in every layer (He et al. 2015 for convolutions); bare parameters stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in graph.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def shallower(graph: GraphModule, spec: ModelSpec, *, depth: float) -> tuple[GraphModule, int, int]:
    """The same network without some of its residual branches, and how many went of how many.

    A branch can go where it is added to its own input: that input then passes as it is. About ``depth`` of
    them stay, the first ones of those that compute the same shape; their weights stay, too. Raises
    StepFailed when none can go.
    """
    student = copy.deepcopy(graph).eval()
    stages = _residual_branches(student, torch.zeros(2, *spec.preprocessing.shape))
    count = sum(map(len, stages))
    leaving = _last_of_each(stages, count - round(depth * count))
    if not leaving:
        found = f"{count} residual branches of equal shape" if count else "no residual branch"
        raise StepFailed(
            "shallower student",
            f"this network has {found}; none can go at depth={depth:g}.",
            "Lower depth, or choose a narrower student or an architecture.",
        )
    for add, passed in leaving:
        # Looked up now: the input may be a sum that is gone already.
        add.replace_all_uses_with(add.args[passed])  # type: ignore[arg-type]
    student.graph.eliminate_dead_code()
    student.delete_all_unused_submodules()
    student.recompile()
    return student, len(leaving), count


def _residual_branches(graph: GraphModule, sample: Tensor) -> list[list[tuple[Node, int]]]:
    """Sums x + f(x), and which of their two arguments x is, in order and by shape."""
    with torch.no_grad():
        ShapeProp(graph).propagate(sample)
    stages: dict[torch.Size, list[tuple[Node, int]]] = defaultdict(list)
    for node in graph.graph.nodes:
        name = getattr(node.target, "__name__", "").split(".")[0]
        if node.op != "call_function" or name not in ("add", "add_", "iadd"):
            continue
        shapes = [_shape(argument) for argument in node.args[:2]]
        if len(shapes) == 2 and shapes[0] is not None and shapes[0] == shapes[1]:
            for passed in (0, 1):
                if _leads_to(node.args[passed], node.args[1 - passed]):
                    stages[shapes[0]].append((node, passed))
    return list(stages.values())


def _last_of_each(stages: list[list[tuple[Node, int]]], wanted: int) -> list[tuple[Node, int]]:
    """As many as wanted, each the last of the stage that has most of its own left."""
    left = [list(stage) for stage in stages]

    def fullness(index: int) -> tuple[float, int, int]:
        return len(left[index]) / len(stages[index]), len(left[index]), index

    return [left[max(range(len(stages)), key=fullness)].pop() for _ in range(wanted)]


def _shape(value: object) -> torch.Size | None:
    meta = value.meta.get("tensor_meta") if isinstance(value, Node) else None
    return getattr(meta, "shape", None)


def _leads_to(start: Node, end: Node) -> bool:
    """True when ``end`` is computed from ``start``, among others."""
    seen, waiting = set[Node](), [end]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node is start:
                return True
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return False


def _parameters(graph: GraphModule) -> int:
    return sum(parameter.numel() for parameter in graph.parameters())
