"""What the profile itself costs: about two microseconds per operator, as much as a small operator takes.

Measured on chains of an operator that does next to nothing. Per operator the profile tells its own cost and
the operator's; a chain that is longer by so many operators tells, without the profile, the operator's and
that of going on to the next one. The difference is taken off every time, so that the times of operators add
up to the time of a call without the profile.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from workers.runtimes.onnxruntime import session_options
from workers.stopwatch import timed

#: Operators in the two chains, and inputs of each: what is written down grows with them.
SHORT, LONG = 16, 80
FEW, MANY = 1, 9
CALLS = 60
#: The runtime cuts times off to whole microseconds: half of one is missing on average.
CUT_OFF_US = 0.5


@dataclass(frozen=True)
class Bookkeeping:
    """Microseconds per operator. within: in its time, for one input; per_input: for each further one.
    around: outside of its time, but within that of an operator whose graph it is in."""

    within_us: float
    per_input_us: float
    around_us: float

    def of(self, inputs: int) -> float:
        return self.within_us + self.per_input_us * (inputs - 1)


def measure_bookkeeping(threads: int, folder: Path) -> Bookkeeping:
    """Takes a tenth of a second; the caller has the host to itself."""
    few, around = _cost(FEW, threads, folder)
    many, _ = _cost(MANY, threads, folder)
    return Bookkeeping(few, (many - few) / (MANY - FEW), around)


def typical(times: Sequence[float]) -> float:
    """The mean of those between the 10th percentile and the median: what disturbs a call only adds."""
    ordered = np.sort(times)
    return float(ordered[len(ordered) // 10 : len(ordered) // 2 + 1].mean())


def _cost(inputs: int, threads: int, folder: Path) -> tuple[float, float]:
    """(within, around) for operators with so many inputs."""
    plain_us = [_call_us(_chain(length, inputs, threads)) for length in (SHORT, LONG)]
    profiled = [_chain(length, inputs, threads, folder / "bookkeeping") for length in (SHORT, LONG)]
    whole_us = [_call_us(session) for session in profiled]
    events = [json.loads(Path(session.end_profiling()).read_text()) for session in profiled]
    told_us = typical([event["dur"] for event in events[1] if event["cat"] == "Node"]) + CUT_OFF_US
    each_us, each_profiled_us = (float(np.diff(us)[0]) / (LONG - SHORT) for us in (plain_us, whole_us))
    return max(0.0, told_us - each_us), max(0.0, each_profiled_us - told_us)


def _call_us(session: ort.InferenceSession) -> float:
    inputs = {"0": np.ones((), np.float32)}
    return typical([1e6 * timed(lambda: session.run(None, inputs), threads=1)[0] for _ in range(CALLS)])


def _chain(length: int, inputs: int, threads: int, profile: Path | None = None) -> ort.InferenceSession:
    """Sums of one number, one after another, each of the last result and constants."""
    names = [str(place) for place in range(length + 1)]
    nodes = [
        helper.make_node("Sum", [before, *["zero"] * (inputs - 1)], [after])
        for before, after in itertools.pairwise(names)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in (names[0], names[-1])]
    zero = from_array(np.zeros((), np.float32), "zero")
    graph = helper.make_graph(nodes, "bookkeeping", ends[:1], ends[1:], [zero] * (inputs > 1))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = session_options(threads, optimize=False, profile=profile)
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
