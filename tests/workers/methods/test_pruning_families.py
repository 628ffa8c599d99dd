"""Architectures from torchvision, random weights: pruned, exported, and the same logits in ONNX Runtime."""

from pathlib import Path

import pytest
import torch
import torchvision

from tests.support.arrays import ArrayData, context
from workers.base import Candidate, ImagePreprocessing, ModelSpec
from workers.deploy.export import export_onnx
from workers.deploy.parity import check_parity
from workers.errors import StepFailed
from workers.graph.archive import trace, write_archive
from workers.graph.importing import open_model
from workers.measures.macs import count_macs
from workers.methods.structured_pruning import StructuredPruning
from workers.runtimes.onnxruntime import OnnxRuntime

CLASSES = tuple("abcdefghij")


def model_of(architecture: str, size: int, folder: Path) -> tuple[Candidate, ArrayData]:
    """As after an upload, and a few pictures of noise."""
    torch.manual_seed(0)
    preprocessing = ImagePreprocessing(channels=3, height=size, width=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    spec = ModelSpec(
        name=architecture, sha256="0" * 64, architecture=architecture, classes=10, preprocessing=preprocessing
    )
    more = {"init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    net = torchvision.models.get_model(architecture, weights=None, num_classes=10, **more).eval()
    for parameter in net.parameters():
        if parameter.dim() > 1 and not parameter.any():  # ViT starts with a classifier of zeros
            torch.nn.init.normal_(parameter, std=0.02)
    write_archive(trace(net, preprocessing), folder / "net.pt2")
    pictures = torch.randn(8, 3, size, size), torch.arange(8)
    data = ArrayData(dict.fromkeys(("train", "calibration", "validation"), pictures), CLASSES)
    return open_model(folder / "net.pt2", spec), data


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("resnet18", 64),
        ("mobilenet_v3_small", 64),
        *(
            pytest.param(name, size, marks=[pytest.mark.slow, pytest.mark.timeout(900)])
            for name, size in {
                "mobilenet_v2": 64,
                "efficientnet_b0": 64,
                "regnet_y_400mf": 64,
                "densenet121": 64,
                "convnext_tiny": 64,
                "vgg11": 64,
                "googlenet": 64,
                "inception_v3": 96,
                "vit_b_16": 224,
                "swin_t": 224,
            }.items()
        ),
    ],
)
def test_a_family_is_pruned_exported_and_stays_the_same(architecture: str, size: int, tmp_path: Path) -> None:
    model, data = model_of(architecture, size, tmp_path)
    pruned = StructuredPruning(amount=0.4, recovery="none").apply(model, context(tmp_path, data=data))
    assert model.graph is not None
    assert pruned.graph is not None
    assert count_macs(pruned.graph, model.spec) <= 0.6 * count_macs(model.graph, model.spec)
    export_onnx(pruned, tmp_path / "net.onnx", CLASSES)
    inputs, _ = data.splits["validation"]
    parity = check_parity(pruned, tmp_path / "net.onnx", [inputs], OnnxRuntime())
    assert parity is not None
    assert parity.logit_error < 1e-3


def test_a_channel_shuffle_is_refused_by_name(tmp_path: Path) -> None:
    model, data = model_of("shufflenet_v2_x0_5", 64, tmp_path)
    with pytest.raises(StepFailed, match="cannot be followed") as caught:
        StructuredPruning(recovery="none").apply(model, context(tmp_path, data=data))
    assert "channel splits" in caught.value.what
