"""Which layers of an architecture can be narrowed at all, found out by trying, within a time limit."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from workers.errors import StepFailed
from workers.graph.deadline import deadline
from workers.graph.layer_roles import LAYERS, inner_layers, output_layers
from workers.pruning.groups import CannotFollow, Group, TookTooLong, cut, find_groups

#: For all that is tried with one choice of layers: a vision transformer takes 45 s of a processor.
ATTEMPT_SECONDS = 300.0
#: More groups are not tried one by one: each takes a second or two.
MANY = 24
#: What may stand between layers and mix or reorder their channels, by the name of the function.
_MIXERS = {
    "scaled_dot_product_attention": "attention",
    "multi_head_attention_forward": "attention",
    "matmul": "products of two activations",
    "bmm": "products of two activations",
    "einsum": "products of two activations",
    "roll": "shifted windows",
    "chunk": "channel splits",
    "split": "channel splits",
    "split_with_sizes": "channel splits",
    "channel_shuffle": "channel shuffles",
    "pixel_shuffle": "pixel shuffles",
    "view": "reshapes",
    "reshape": "reshapes",
}


@dataclass(frozen=True)
class Followed:
    groups: tuple[Group, ...]
    #: For the reader of the result; empty when every layer can be narrowed.
    notes: tuple[str, ...]


def follow(
    graph: GraphModule, sample: Tensor, scores: Mapping[str, Tensor], keep: frozenset[str]
) -> Followed:
    """The groups that can be cut, alone and together; those that fail the comparison are dropped.

    First all layers but those that give the logits are tried, then, where that takes too long or nothing of
    it holds, the inner ones, whose channels reach the next layers one by one. Raises StepFailed when there
    is none.
    """
    names = {module: name for name, module in graph.named_modules()}
    layers = [name for module, name in names.items() if isinstance(module, LAYERS)]
    outputs = {names[module] for module in output_layers(graph)}
    inner = [names[module] for module in inner_layers(graph)]
    why = ""
    for roots in ([name for name in layers if name not in outputs], inner):
        try:
            with deadline(ATTEMPT_SECONDS):
                groups = _attempt(graph, sample, scores, set(roots), keep)
        except (CannotFollow, TimeoutError) as error:
            why = why or str(error)
            continue
        if groups:
            return Followed(tuple(groups), _notes(graph, groups, layers, outputs | keep, why))
    raise StepFailed(
        "structured_pruning", _nothing_to_follow(graph, layers, keep, why), "Leave this step out."
    )


def _attempt(
    graph: GraphModule, sample: Tensor, scores: Mapping[str, Tensor], roots: set[str], keep: frozenset[str]
) -> list[Group]:
    """All groups of these layers if they hold together, else those that hold alone; may be none."""
    groups = find_groups(copied(graph), sample, scores, roots=roots, keep=keep)
    if groups and not holds(graph, sample, groups):
        groups = _separately(graph, sample, groups)
        return groups if groups and holds(graph, sample, groups) else []
    return groups


def holds(graph: GraphModule, sample: Tensor, groups: Sequence[Group]) -> bool:
    """True when half of the channels of all groups can be cut from a copy and the comparison passes.

    Raises TookTooLong when that does not come to an end.
    """
    dropped = {
        group.root: group.channels(torch.arange(group.width // group.parts)[::2])
        for group in groups
        if group.width > group.parts
    }
    try:
        cut(copied(graph), sample, dropped)
    except TookTooLong:
        raise
    except CannotFollow:
        return False
    return True


def copied(graph: GraphModule) -> GraphModule:
    """A copy that can be cut: nothing can be followed through frozen weights."""
    return copy.deepcopy(graph).eval().requires_grad_(True)


def _separately(graph: GraphModule, sample: Tensor, groups: Sequence[Group]) -> list[Group]:
    """Those that hold alone. Of many, one is tried for all whose names differ in numbers only."""
    kinds = [re.sub(r"\d+", "#", g.root) if len(groups) > MANY else g.root for g in groups]
    verdicts: dict[str, bool] = {}
    for kind, group in zip(kinds, groups, strict=True):
        if kind not in verdicts:
            verdicts[kind] = holds(graph, sample, [group])
    return [group for kind, group in zip(kinds, groups, strict=True) if verdicts[kind]]


def _notes(
    graph: GraphModule, groups: Sequence[Group], layers: Sequence[str], left_alone: set[str], why: str
) -> tuple[str, ...]:
    narrowed = {layer for group in groups for layer in group.layers}
    others = [name for name in layers if name not in narrowed | left_alone]
    if not others:
        return ()
    return (
        f"{len(others)} of {len(layers)} layers keep their width, e.g. {others[0]}: what they are coupled to "
        f"cannot be followed in this architecture ({_reasons(graph, why)}).",
    )


def _nothing_to_follow(graph: GraphModule, layers: Sequence[str], keep: frozenset[str], why: str) -> str:
    if keep >= set(layers):
        return "every layer is to be kept."
    return f"the channels of this architecture cannot be followed ({_reasons(graph, why)})."


def _reasons(graph: GraphModule, why: str) -> str:
    """The first failure and what in the graph mixes channels; reshapes only where there is nothing else."""
    called = {
        str(getattr(node.target, "__name__", node.target)).split(".")[0]
        for node in graph.graph.nodes
        if node.op in ("call_function", "call_method")
    }
    found = dict.fromkeys(meaning for name, meaning in _MIXERS.items() if name in called)
    if len(found) > 1:
        found.pop("reshapes", None)
    reasons = [why] * bool(why) + ["it has " + ", ".join(found)] * bool(found)
    return "; ".join(reasons) or "an unknown operation mixes them"
