"""Changed files against the networks that they are of: the last channels go, so that numbers stay."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.workers.pruning.networks import SPEC, Grouped, Residual, chain, graph_of
from workers.base import Candidate
from workers.deploy.export import export_onnx
from workers.prediction.reading import read_plan
from workers.prediction.resizing import resized
from workers.pruning.following import copied
from workers.pruning.groups import cut
from workers.pruning.search import sample_input
from workers.runtimes.onnxruntime import OnnxRuntime


@pytest.mark.parametrize("net", [chain, Residual, Grouped])
def test_a_resized_file_computes_what_the_narrower_network_does(net: type[nn.Module], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wide = graph_of(net())
    _, groups = read_plan(wide, SPEC)
    narrow = copied(wide)
    half = {g.root: g.channels(torch.arange(g.width // g.parts)[g.width // g.parts // 2 :]) for g in groups}
    cut(narrow, sample_input(SPEC, 0), half)
    export_onnx(Candidate(SPEC, wide), file := tmp_path / "wide.onnx", ())
    onnx.save(resized(file, wide, narrow), made := tmp_path / "narrow.onnx")
    inputs = torch.randn(1, *SPEC.preprocessing.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = narrow(inputs).numpy()
    got = OnnxRuntime().open(made, threads=1).run(inputs.numpy())
    assert got.shape == expected.shape
    # Of channels in two parts the last of each part go, of which the weights that stay know nothing.
    assert np.allclose(got, expected, atol=1e-5) or any(group.parts > 1 for group in groups)
    export_onnx(Candidate(SPEC, narrow), exported := tmp_path / "exported.onnx", ())
    assert sizes(made) == sizes(exported)


def sizes(file: Path) -> list[tuple[int, ...]]:
    """Of all weights; vectors are biases or the shape of a row."""
    stored = [tuple(tensor.dims) for tensor in onnx.load(file).graph.initializer]
    return sorted(size for size in stored if len(size) > 1)
