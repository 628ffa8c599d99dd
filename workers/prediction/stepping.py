"""How long a network trains on a sample."""

import time
from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node
from torch.nn import functional as F
from torch.nn.utils import parametrize

from workers.base import ModelSpec
from workers.graph.layer_roles import LAYERS
from workers.quantization.aware import RoundedActivation, RoundedWeight, folded
from workers.training.settings import TrainingSettings
from workers.turns import training_turn

MADE_UP_RANGE, WEIGHT_LIMIT = (-3.0, 3.0), 127
#: The fastest of so many counts.
TRIES = 3
#: Batches that would compute more than this many multiply-accumulates are timed smaller.
MOST_MACS = 10e9


def step_seconds(graph: GraphModule, spec: ModelSpec, device: torch.device, macs: int) -> tuple[float, float]:
    """Seconds per sample of one update of the weights, and of one look without an update.

    macs: of the model as it is, by which the batch is chosen; of noise, for what it sees takes no time. The
    graph is spoilt.
    """
    usual = TrainingSettings().batch_size
    size = int(min(usual, max(2, MOST_MACS // max(macs, 1))))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, *spec.preprocessing.shape, generator=generator).to(device)
    labels = torch.zeros(size, dtype=torch.int64, device=device)
    graph.to(device).train()
    optimizer = torch.optim.SGD(graph.parameters(), lr=1e-6, momentum=0.9, nesterov=True)

    def update() -> None:
        optimizer.zero_grad()
        F.cross_entropy(graph(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def look() -> None:
        with torch.inference_mode():
            graph(inputs)

    taken = []
    for work in (update, look):
        seconds = []
        for _ in range(TRIES):
            with training_turn():
                seconds.append(_seconds(work, device))
        taken.append(min(seconds) / size)
        graph.eval()
    graph.cpu()
    return taken[0], taken[1]


def rounding(graph: GraphModule) -> GraphModule:
    """A copy that rounds what every layer reads, and its weights, as training for int8 does."""
    made = folded(graph)
    called = [node for node in made.graph.nodes if node.op == "call_module"]
    layers = [node for node in called if isinstance(made.get_submodule(str(node.target)), LAYERS)]
    for layer in dict.fromkeys(str(node.target) for node in layers):
        module = made.get_submodule(layer)
        parametrize.register_parametrization(module, "weight", RoundedWeight(WEIGHT_LIMIT))
    read = dict.fromkeys(node.args[0] for node in layers if isinstance(node.args[0], Node))
    for number, node in enumerate(read):
        made.add_submodule(f"rounding{number}", RoundedActivation(MADE_UP_RANGE))
        with made.graph.inserting_after(node):
            after = made.graph.call_module(f"rounding{number}", (node,))
        node.replace_all_uses_with(after, propagate_meta=False)
        after.args = (node,)
    made.recompile()
    return made


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
