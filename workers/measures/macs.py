"""How many multiply-accumulate operations one sample costs. Never shown as speed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from workers.base import Artefact, Bench, Measure, Measurement, ModelSpec


class Macs(Measure):
    """Multiply-accumulates of convolutions and matrix products, one sample; None without a graph."""

    title = "MACs"
    unit = "MAC"
    better = "lower"

    def take(self, artefacts: Sequence[Artefact], bench: Bench) -> list[list[Measurement]]:  # noqa: ARG002
        return [
            [Measurement(name="macs", value=_macs(artefact), unit=self.unit, better=self.better)]
            for artefact in artefacts
        ]


def _macs(artefact: Artefact) -> int | None:
    candidate = artefact.candidate
    return None if candidate.graph is None else count_macs(candidate.graph, candidate.spec)


def count_macs(graph: GraphModule, spec: ModelSpec) -> int:
    """Run one sample through the graph and count; the graph is left as it was.

    Additions of a bias, normalization and activations are not counted, as is the custom.
    """
    parameter = next(graph.parameters(), torch.empty(0))
    samples = [
        torch.zeros([size if isinstance(size, int) else 1 for size in tensor.shape], device=parameter.device)
        for tensor in spec.inputs
    ]
    with _countable(graph), FlopCounterMode(display=False) as counter:
        graph(*samples)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _countable(graph: GraphModule) -> Iterator[None]:
    """Evaluation mode, and attention as plain matrix products: its fused kernels are counted as nothing."""
    training = [module for module in graph.modules() if module.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    graph.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module in training:
            module.training = True
