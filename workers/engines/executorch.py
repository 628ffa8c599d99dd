"""ExecuTorch with XNNPACK, on the processor.

Lowering takes seconds and is done when a file is opened; no time that is taken holds it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime

from workers.engines.torch_eager import load
from workers.engines.wire import Refused
from workers.graph.archive import read_archive
from workers.graph.program import input_shape

#: Its memory is planned beforehand, for so many samples.
LARGEST_BATCH = 64


def open_file(file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    if portable_lib._threadpool_get_thread_count() != threads:
        # Once: a process is for one number of threads, and what is loaded keeps the pool it was loaded with.
        portable_lib._unsafe_reset_threadpool(threads)
    method = Runtime.get().load_program(_lowered(file, file.stat().st_mtime_ns)).load_method("forward")
    if method is None or method.metadata.num_outputs() != 1:
        raise Refused("it has early exits, and the archive alone leaves nowhere early")

    def call(inputs: np.ndarray) -> np.ndarray:
        if len(inputs) > LARGEST_BATCH:
            raise Refused(f"its memory is planned for batches of at most {LARGEST_BATCH}")
        (logits,) = method.execute([torch.from_numpy(inputs)])
        return np.array(logits.numpy())  # the next call writes into the same memory

    return call


@cache  # a file is opened many times
def _lowered(file: Path, changed_ns: int) -> bytes:  # noqa: ARG001 - part of the key
    _, *shape = input_shape(read_archive(file))
    batch = torch.export.Dim("N", min=1, max=LARGEST_BATCH)
    # Traced with few samples, a convolution of torch would bound the batch to what it has a fast way for.
    sample = torch.zeros(LARGEST_BATCH, *shape)
    program = torch.export.export(load(file), (sample,), dynamic_shapes=({0: batch},))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)
