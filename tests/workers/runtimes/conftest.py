"""A stage's two files, as the pipeline writes them."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.arrays import candidate, small_net
from workers.deploy.export import export_onnx
from workers.graph.archive import trace, write_archive


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.onnx` with `model.pt2` beside it."""
    file, model = tmp_path_factory.mktemp("stage") / "model.onnx", candidate(small_net())
    assert model.graph is not None
    export_onnx(model, file, ("a", "b", "c"))
    write_archive(trace(model.graph, model.spec.preprocessing), file.with_suffix(".pt2"))
    return file


def pictures(samples: int) -> np.ndarray:
    """(samples, 1, 8, 8) float32."""
    return np.random.default_rng(samples).normal(size=(samples, 1, 8, 8)).astype(np.float32)
