"""Torch, compiled by inductor with a dynamic batch.

Compiling takes seconds to minutes and is done when a file is opened; no time that is taken holds it. What was
compiled stays for as long as the process does; each opening has its own copy of the weights, since where they
lie in memory is part of what a time depends on.
"""

import os

#: Before torch is there: compiling must stay on the cores that this process was given.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.engines.torch_eager import called, load
from workers.graph.archive import read_archive
from workers.graph.program import input_shape


@cache
def _compiled(
    file: Path,
    changed_ns: int,  # noqa: ARG001 - part of the key
) -> tuple[torch.fx.GraphModule, Callable[[Tensor], Tensor]]:
    module = load(file)
    return module, torch.compile(module)


def open_file(file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    torch.set_num_threads(threads)
    module, compiled = _compiled(file, file.stat().st_mtime_ns)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()

    def dynamic(inputs: Tensor) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(inputs, 0)
        return compiled(inputs)

    call = called(dynamic, threads)
    _, *shape = input_shape(read_archive(file))
    for batch in (1, 2):  # a batch of one is compiled for itself
        call(np.zeros((batch, *shape), np.float32))
    return call
