"""Calls of files while ONNX Runtime writes down how long each of its operators takes.

Every file is opened twice: with the profile, for the times of operators, and without it, for the time of the
whole call. Both take the same samples in shuffled rounds, and files that are recorded together are called
in turns, so that they compare.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from workers.base import Progress
from workers.measures.latency import WARM_UP_ROUNDS, alone
from workers.profiling.bookkeeping import CUT_OFF_US, Bookkeeping, measure_bookkeeping
from workers.runtimes.onnxruntime import OnnxRuntimeSession, opened, session_options

SITTINGS = 5
MIN_ROUNDS, MAX_ROUNDS = 5, 100
#: Operators that are written down in one sitting; more take longer to read than to run.
MAX_EVENTS = 4000
THREADS = 1
#: These run graphs of their own, whose operators are recorded too.
WITH_GRAPHS = frozenset(("If", "Loop", "Scan"))

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator that the runtime carries out, as it was first seen.

    name: as the runtime calls it. inputs, outputs: (dtype, shape) each. moved_bytes: of its activations, read
    and written; weights are not in it. made: names of the tensors it makes in the runtime's own graph.
    """

    name: str
    kind: str
    inputs: tuple[tuple[str, Shape], ...]
    outputs: tuple[tuple[str, Shape], ...]
    moved_bytes: int
    made: tuple[str, ...] = ()


#: Microseconds of each operator that ran in one call.
Call = Mapping[str, float]


@dataclass
class Recording:
    """All calls of one file.

    operators: by a key of their own, in the order in which they ran. calls: per sitting. whole_us: the same
    calls without the profile. disturbed: share of those that were pushed off their core.
    """

    operators: dict[str, Operator] = field(default_factory=dict)
    calls: list[list[Call]] = field(default_factory=list)
    whole_us: list[np.ndarray] = field(default_factory=list)
    disturbed: float = 0.0
    pinned: bool = True


def record(
    files: Sequence[Path],
    samples: Sequence[np.ndarray],
    *,
    seconds: float = 6.0,
    seed: int = 0,
    threads: int = THREADS,
    tell: Callable[[Progress], None] = lambda _: None,
) -> list[Recording]:
    """One recording per file. seconds: for the calls of one file; slow ones take longer.

    Raises ModelRefused for a file that ONNX Runtime cannot load.
    """
    generator = np.random.default_rng(seed)
    recordings = [Recording() for _ in files]
    with tempfile.TemporaryDirectory() as folder:
        files = [_named(file, Path(folder) / f"{number}.onnx") for number, file in enumerate(files)]
        made = [_made(file, Path(folder)) for file in files]
        written: list[tuple[Bookkeeping, list[tuple[Path, int]]]] = []
        rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, MAX_EVENTS // max(map(len, made))))
        limit = seconds * len(files) / SITTINGS
        with alone(threads) as is_pinned:
            for sitting in range(SITTINGS):
                first = samples[sitting * rounds % len(samples) :]
                sat = _Sitting(files, Path(folder), generator, threads)
                whole = sat.call([*first, *samples], rounds, limit)
                rounds, limit = len(whole), np.inf  # as many in every sitting
                written.append((measure_bookkeeping(threads, Path(folder)), sat.end()))
                for index, recording in enumerate(recordings):
                    recording.whole_us.append(1e6 * whole[:, index, 0])
                    recording.disturbed += float(whole[:, index, 1].mean()) / SITTINGS
                    recording.pinned = is_pinned
                tell(Progress("timing every operator", (sitting + 1) / SITTINGS))
        for cost, profiles in written:
            for index, (path, warm) in enumerate(profiles):
                _read(path, warm, made[index], cost, recordings[index])
    return recordings


class _Sitting:
    """All files opened anew, each with and without the profile."""

    def __init__(
        self, files: Sequence[Path], folder: Path, generator: np.random.Generator, threads: int
    ) -> None:
        self._generator, self._threads, self._warm = generator, threads, 0
        self._profiled: list[ort.InferenceSession] = []
        self._plain: list[OnnxRuntimeSession] = []
        for file in files:
            self._profiled.append(opened(file, session_options(threads, profile=folder / "profile")))
            self._plain.append(OnnxRuntimeSession(opened(file, session_options(threads))))

    def call(self, samples: Sequence[np.ndarray], rounds: int, seconds: float) -> np.ndarray:
        """(rounds, files, 2): seconds of the calls without the profile, and 1 where they were disturbed.

        Of a disturbed call only the time on its core counts: on a busy machine hardly any operator is pushed
        off, and still hardly any whole call is not.
        """
        both = [(index, profiled) for index in range(len(self._plain)) for profiled in (False, True)]
        for inputs in samples[:WARM_UP_ROUNDS]:
            for index, profiled in both:
                self._run(index, profiled, inputs)
        self._warm = len(samples[:WARM_UP_ROUNDS])
        found = np.zeros((rounds, len(self._plain), 2))
        spent_s = 0.0
        for number in range(rounds):
            if number >= MIN_ROUNDS and spent_s > seconds:
                return found[:number]
            inputs = samples[number % len(samples)]
            for place in self._generator.permutation(len(both)):
                index, profiled = both[place]
                if profiled:  # the first call is for the cache; only the second one is read
                    self._run(index, profiled, inputs)
                    self._run(index, profiled, inputs)
                else:
                    self._run(index, profiled, inputs)
                    start_s = time.thread_time()
                    wall_s, disturbed = self._plain[index].timed(inputs, self._threads)
                    on_core_s = time.thread_time() - start_s
                    found[number, index] = on_core_s if disturbed else wall_s, disturbed
            spent_s += 4 * float(found[number, :, 0].sum())
        return found

    def _run(self, index: int, profiled: bool, inputs: np.ndarray) -> None:
        if profiled:
            session = self._profiled[index]
            session.run(None, {session.get_inputs()[0].name: inputs})
        else:
            self._plain[index].run(inputs)

    def end(self) -> list[tuple[Path, int]]:
        """Per file the profile that was written, and how many calls in it were for warming up."""
        return [(Path(session.end_profiling()), self._warm) for session in self._profiled]


def plain_name(name: str) -> str:
    """As the runtime's own files call an operator, without the counter that it hangs on."""
    return re.sub(r"_token_\d+$", "", name)


def _named(file: Path, copy: Path) -> Path:
    """The file itself where all of its nodes have names, else a copy in which the others are called after
    what they make: nothing else tells which node an operator was."""
    model = onnx.load(str(file))
    unnamed = [node for node in model.graph.node if not node.name]
    for node in unnamed:
        node.name = next(filter(None, node.output), node.op_type)
    if unnamed:
        onnx.save(model, str(copy))
    return copy if unnamed else file


def _made(file: Path, folder: Path) -> dict[str, tuple[str, ...]]:
    """What each operator makes in the graph as the runtime has rewritten it, by the operator's name."""
    options = session_options(THREADS)
    options.optimized_model_filepath = str(folder / "rewritten.onnx")
    opened(file, options)
    graphs, found = [onnx.load(options.optimized_model_filepath).graph], {}
    while graphs:
        for node in graphs.pop().node:
            found[node.name] = tuple(node.output)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found


def _read(
    path: Path, warm: int, made: Mapping[str, tuple[str, ...]], cost: Bookkeeping, into: Recording
) -> None:
    """Add the calls of one profile; those for warming up and every first of two are left out."""
    calls: list[Call] = []
    events: list[dict[str, Any]] = []
    number = 0
    for event in json.loads(path.read_text()):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            events.append(event)
        elif event["name"] == "model_run":
            if number >= warm and (number - warm) % 2:
                calls.append(_own_times(events, made, cost, into.operators))
            number += 1
            events = []
    into.calls.append(calls)
    path.unlink()


def _own_times(
    events: Sequence[dict[str, Any]],
    made: Mapping[str, tuple[str, ...]],
    cost: Bookkeeping,
    operators: dict[str, Operator],
) -> Call:
    """Of one call, without what the profile costs; what runs graphs of its own counts without them.

    events: in the order they ended.
    """
    times: dict[str, float] = {}
    ended: list[tuple[int, float]] = []  # (start, time with all that is within)
    for event in events:
        arguments, start = event["args"], event["ts"]
        kind, name = arguments["op_name"], event["name"].removesuffix("_kernel_time")
        whole_us = event["dur"] + CUT_OFF_US
        own_us = whole_us - cost.of(len(arguments["input_type_shape"]))
        while kind in WITH_GRAPHS and ended and ended[-1][0] >= start:
            own_us -= ended.pop()[1] + cost.around_us
        ended.append((start, whole_us))
        key = f"{name} {kind} {arguments['node_index']}"
        times[key] = times.get(key, 0.0) + max(0.0, own_us)
        if key not in operators:
            operators[key] = _operator(name, kind, arguments, made.get(name, ()))
    return times


def _operator(name: str, kind: str, arguments: Mapping[str, Any], made: tuple[str, ...]) -> Operator:
    return Operator(
        name,
        kind,
        _shapes(arguments["input_type_shape"]),
        _shapes(arguments["output_type_shape"]),
        int(arguments["activation_size"]) + int(arguments["output_size"]),
        made,
    )


def _shapes(told: Sequence[Mapping[str, Sequence[int]]]) -> tuple[tuple[str, Shape], ...]:
    return tuple((kind, tuple(shape)) for value in told for kind, shape in value.items())
