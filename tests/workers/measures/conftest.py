"""A tiny dataset, and a linear classifier as an ONNX file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from workers import turns
from workers.base import Artefact, Bench, Candidate, ImagePreprocessing, ModelSpec, Split, Target
from workers.runtimes.onnxruntime import OnnxRuntime

SIDE, CLASSES = 8, 5
WEIGHT = np.random.default_rng(0).normal(size=(SIDE * SIDE, CLASSES)).astype(np.float32)


@dataclass(frozen=True)
class Pictures:
    """(N, 1, 8, 8) random pictures; each split has its own."""

    samples: dict[Split, np.ndarray]
    truth: dict[Split, np.ndarray]

    classes = tuple("abcde")

    def labels(self, split: Split) -> np.ndarray:
        return self.truth[split]

    def order(self, split: Split, shuffle: int | None) -> np.ndarray:
        order = np.arange(len(self.truth[split]))
        if shuffle is not None:
            np.random.default_rng(shuffle).shuffle(order)
        return order

    def batches(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: int | None = None,
        augment: str = "none",  # noqa: ARG002
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = self.order(split, shuffle)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield torch.from_numpy(self.samples[split][chosen]), torch.from_numpy(self.truth[split][chosen])


@pytest.fixture(autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests neither wait for a real measurement on this host nor hold one up."""
    folder = tmp_path_factory.mktemp("turns")
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(folder))
    return folder


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        name="linear",
        sha256="0" * 64,
        architecture=None,
        classes=CLASSES,
        preprocessing=ImagePreprocessing(channels=1, height=SIDE, width=SIDE, mean=(0.0,), std=(1.0,)),
    )


@pytest.fixture
def pictures() -> Pictures:
    """70 validation and 130 test pictures, labelled by the linear classifier: it is always right."""
    generator = np.random.default_rng(1)
    sizes: dict[Split, int] = {"validation": 70, "test": 130}
    samples = {
        split: generator.normal(size=(size, 1, SIDE, SIDE)).astype(np.float32)
        for split, size in sizes.items()
    }
    truth = {
        split: (inputs.reshape(len(inputs), -1) @ WEIGHT).argmax(axis=1) for split, inputs in samples.items()
    }
    return Pictures(samples, truth)


@pytest.fixture
def bench(pictures: Pictures) -> Bench:
    return Bench(pictures, OnnxRuntime(), Target(host="here"), lambda _: None)


@pytest.fixture
def linear(tmp_path: Path, spec: ModelSpec) -> Artefact:
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array([-1, SIDE * SIDE]), "shape"),
        numpy_helper.from_array(WEIGHT, "weight"),
    ]
    return Artefact(save(tmp_path / "linear.onnx", nodes, initializers), Candidate(spec))


def save(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> Path:
    """A network from ``input`` (N, 1, 8, 8) to ``logits`` (N, 5)."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
