"""Other libraries on the same network, as their own documentation uses them; each call writes one file."""

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch_pruning as tp
from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static
from torch import nn

from tests.benchmarks.fashion import Fashion
from workers.base import Candidate, Context, Target
from workers.catalog import RUNTIMES
from workers.deploy.export import export_onnx
from workers.graph.layer_roles import output_layers
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, task: Fashion, samples: int) -> None:
        batches = task.data.batches("calibration", 1)
        self.inputs = iter([{"input": next(batches)[0].numpy()} for _ in range(samples)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def onnxruntime_default(task: Fashion, float_file: Path, samples: int, file: Path, _: int) -> str:
    prepared = file.with_suffix(".prepared")
    quant_pre_process(str(float_file), str(prepared))
    quantize_static(str(prepared), str(file), _Reader(task, samples))
    prepared.unlink()
    return f"quantize_static with its defaults, {samples} calibration samples"


def nncf_default(task: Fashion, float_file: Path, file: Path, _: int) -> str:
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    inputs = [batch for batch, _ in task.data.batches("calibration", 1)]
    data = nncf.Dataset([{"input": batch.numpy()} for batch in inputs[:300]])
    onnx.save(nncf.quantize(onnx.load(float_file), data), str(file))
    return "nncf.quantize with its defaults, 300 calibration samples"


def torch_pruning_recipe(
    task: Fashion,
    folder: Path,
    device: torch.device,
    settings: TrainingSettings,
    round_to: int | None,
    file: Path,
    seed: int,
) -> str:
    """Global pruning by the norm of groups until half of the MACs are gone, then fine-tuning on labels."""
    settings_of_it = {"global_pruning": True, "pruning_ratio": 0.95, "iterative_steps": 200}
    return _torch_pruning(task, folder, device, settings, settings_of_it | {"round_to": round_to}, file, seed)


def torch_pruning_example(
    task: Fashion, folder: Path, device: torch.device, settings: TrainingSettings, file: Path, seed: int
) -> str:
    """The example in its README: half of the channels of every layer at once, in multiples of 8."""
    settings_of_it = {"pruning_ratio": 0.5, "round_to": 8}
    return _torch_pruning(task, folder, device, settings, settings_of_it, file, seed)


def _torch_pruning(
    task: Fashion,
    folder: Path,
    device: torch.device,
    settings: TrainingSettings,
    asked: Mapping[str, Any],
    file: Path,
    seed: int,
) -> str:
    """asked: of its BasePruner; in several steps until half of the MACs are gone."""
    assert task.model.graph is not None
    graph = copy.deepcopy(task.model.graph).eval().requires_grad_(True)
    sample = torch.randn(1, *task.model.spec.preprocessing.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = tp.utils.count_ops_and_params(graph, sample)[0]
        macs = base
        pruner = tp.pruner.BasePruner(
            graph,
            sample,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            ignored_layers=list(output_layers(graph)),
            **asked,
        )
        while macs > 0.5 * base:
            pruner.step()
            macs = tp.utils.count_ops_and_params(graph, sample)[0]
    scratch = folder / "peer" / file.stem
    scratch.mkdir(parents=True, exist_ok=True)
    context = Context(
        data=task.data,
        original=task.model,
        runtime=RUNTIMES["onnxruntime"](),
        target=Target(host="here"),
        device=device,
        seed=seed,
        scratch=scratch,
        tell=lambda _: None,
    )
    train(graph, context, settings=settings, loss=cross_entropy())
    export_onnx(Candidate(task.model.spec, graph), file, task.data.classes)
    widths = [m.out_channels for m in graph.modules() if isinstance(m, nn.Conv2d)]
    return f"{1 - macs / base:.1%} of the MACs gone, widths {widths}"
