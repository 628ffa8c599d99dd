"""What a machine can do at most: arithmetic of a large matrix product, bytes of a copy; on one thread."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from workers.base import Frozen
from workers.measures.latency import alone
from workers.profiling.recording import THREADS
from workers.runtimes.onnxruntime import session_options

#: Rows, columns and depth of the product.
SIDE = 768
#: Of the copied array: one that stays in the core's own caches, and on to one that only memory holds.
COPIES = (64 << 10, 512 << 10, 4 << 20, 64 << 20)
TURNS, TURN_S = 8, 0.05


class Peaks(Frozen):
    """gflops: 10⁹ operations a second by precision, a multiplication and an addition being two.
    gbytes: (bytes that are read and written, 10⁹ of them a second), smallest first: caches are faster."""

    gflops: dict[str, float]
    gbytes: tuple[tuple[int, float], ...]

    def best(self, other: "Peaks") -> "Peaks":
        """Of both: a busy machine shows less than it can do, never more."""
        gflops = {name: max(speed, other.gflops.get(name, 0)) for name, speed in self.gflops.items()}
        pairs = zip(self.gbytes, other.gbytes, strict=True)
        return Peaks(gflops=gflops, gbytes=tuple((size, max(one, two)) for (size, one), (_, two) in pairs))

    def bandwidth(self, moved_bytes: float) -> float:
        """10⁹ bytes a second for that many: of the smallest copy that moves no fewer."""
        return next((speed for size, speed in self.gbytes if size >= moved_bytes), self.gbytes[-1][1])

    def roof_ms(self, macs: float, moved_bytes: float, precision: str) -> float:
        """The least time of an operator: it can neither compute nor move faster (Williams et al. 2009)."""
        peak = self.gflops.get(precision, self.gflops["float32"])
        return 1e-6 * max(2 * macs / peak, moved_bytes / self.bandwidth(moved_bytes))


def measure_peaks() -> Peaks:
    """Takes about three seconds, alone on the host."""
    products = {"float32": _product("MatMul", np.float32), "int8": _product("MatMulInteger", np.uint8)}
    copies = {size: _copy(size) for size in COPIES}
    with alone(THREADS):
        taken = _fastest_s([*products.values(), *copies.values()])
    gflops = {name: 2e-9 * SIDE**3 / seconds for name, seconds in zip(products, taken, strict=False)}
    moved = zip(copies, taken[len(products) :], strict=True)
    return Peaks(gflops=gflops, gbytes=tuple((2 * size, 2e-9 * size / seconds) for size, seconds in moved))


def _product(kind: str, dtype: type[np.generic]) -> Callable[[], object]:
    """With a constant second factor, as layers have; in integers unsigned times signed."""
    generator = np.random.default_rng(0)
    integers = dtype is np.uint8
    weight = generator.integers(-64, 64, (SIDE, SIDE)).astype(np.int8 if integers else dtype)
    given, made = (TensorProto.UINT8, TensorProto.INT32) if integers else (TensorProto.FLOAT,) * 2
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["c"])],
        "peak",
        [helper.make_tensor_value_info("a", given, [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", made, [SIDE, SIDE])],
        [from_array(weight, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(
        model.SerializeToString(), session_options(THREADS), ["CPUExecutionProvider"]
    )
    inputs = {"a": generator.integers(0, 128, (SIDE, SIDE)).astype(dtype)}
    return lambda: session.run(None, inputs)


def _copy(size: int) -> Callable[[], object]:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return lambda: np.copyto(target, source)


def _fastest_s(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of the fastest time of each call, in turns, so that a busy moment spoils none of them."""
    found = [math.inf] * len(calls)
    for _ in range(TURNS):
        for place, call in enumerate(calls):
            call()
            end = time.perf_counter() + TURN_S
            while time.perf_counter() < end:
                start = time.perf_counter()
                call()
                found[place] = min(found[place], time.perf_counter() - start)
    return found
