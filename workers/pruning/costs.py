"""What pruning is to make smaller: multiply-accumulates, parameters or the time on the target."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

from torch.fx import GraphModule

from workers.base import Artefact, Bench, Candidate, Context
from workers.deploy.export import export_onnx
from workers.measures.latency import Latency
from workers.measures.macs import count_macs

Amount = Literal["macs", "parameters", "latency"]
#: Of rounds per candidate: enough to choose by; what the result takes is measured anew, and longer.
LATENCY_SECONDS = 0.5


class Cost(ABC):
    """Of a graph, relative to the one that it was made with."""

    title: str
    #: Shares of channels that are tried: 0, 1/steps … Fewer where a try is slow.
    steps = 256

    @abstractmethod
    def removed(self, graph: GraphModule) -> float:
        """Share of the cost that is gone."""


def cost_of(amount: Amount, start: Candidate, context: Context) -> Cost:
    return COSTS[amount](start, context)  # type: ignore[call-arg]


class _Macs(Cost):
    title = "multiply-accumulates"

    def __init__(self, start: Candidate, context: Context) -> None:  # noqa: ARG002
        assert start.graph is not None
        self.spec, self.before = start.spec, count_macs(start.graph, start.spec)

    def removed(self, graph: GraphModule) -> float:
        return 1 - count_macs(graph, self.spec) / self.before


class _Parameters(Cost):
    title = "parameters"

    def __init__(self, start: Candidate, context: Context) -> None:  # noqa: ARG002
        assert start.graph is not None
        self.before = _count(start.graph)

    def removed(self, graph: GraphModule) -> float:
        return 1 - _count(graph) / self.before


def _count(graph: GraphModule) -> int:
    return sum(parameter.numel() for parameter in graph.parameters())


class _Latency(Cost):
    """Exported and timed on the target as results are, start and graph in turns, in fewer rounds."""

    title = "latency"
    steps = 32

    def __init__(self, start: Candidate, context: Context) -> None:
        self.start, self.context = start, context
        self.folder = context.scratch / "timed"
        self.folder.mkdir(exist_ok=True)
        self.baseline = self._exported(start, "start")

    def removed(self, graph: GraphModule) -> float:
        narrowed = self._exported(Candidate(self.start.spec, graph), "narrowed")
        bench = Bench(self.context.data, self.context.runtime, self.context.target, lambda _: None)
        found = Latency(seconds=LATENCY_SECONDS).take([self.baseline, narrowed], bench)[1]
        ratio = next(measurement.value for measurement in found if measurement.name == "latency_ratio")
        assert ratio is not None
        return 1 - ratio

    def _exported(self, candidate: Candidate, name: str) -> Artefact:
        file = self.folder / f"{name}.onnx"
        export_onnx(candidate, file, self.context.data.classes)
        return Artefact(file, candidate)


COSTS: Mapping[Amount, type[Cost]] = {"macs": _Macs, "parameters": _Parameters, "latency": _Latency}
