"""Torch, operator by operator."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.engines.wire import Refused
from workers.graph.archive import read_archive
from workers.graph.program import as_written


def open_file(file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    return called(load(file), threads)


def load(file: Path) -> torch.fx.GraphModule:
    """The program of a `.pt2` in evaluation form."""
    return as_written(read_archive(file)).eval()


def called(module: Callable[[Tensor], Tensor], threads: int) -> Callable[[np.ndarray], np.ndarray]:
    def call(inputs: np.ndarray) -> np.ndarray:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            logits = module(torch.from_numpy(inputs))
        if not isinstance(logits, Tensor):
            raise Refused("it has early exits, and the archive alone leaves nowhere early")
        return logits.numpy()

    return call
