"""Store and compute in fewer bits: int8 by calibration, per call or by training; half the bits of a float."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from workers.base import Candidate, Context, Family, Method
from workers.errors import StepFailed
from workers.graph.naming import named_layers
from workers.quantization.answers import check_saturation
from workers.quantization.aware import folded, with_rounding, without_rounding
from workers.quantization.naming import module_names
from workers.quantization.network import Network, float_network
from workers.quantization.nncf_writer import by_nncf, nncf_is_installed
from workers.quantization.scheme import Scheme, scheme_of_host, scheme_with
from workers.quantization.staged import cut
from workers.quantization.static import calibrate
from workers.quantization.trials import Trial, Trials
from workers.quantization.writing import Writer, bfloat16, dynamic, float16
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings
from workers.training.zeros import zeros_kept

INT8 = ("static", "dynamic", "qat")
#: Folder for the float file after qat.
TRAINED = "trained"


class Quantization(TrainingSettings, Method):
    """The exported file is rewritten with fewer bits, compared with float and timed against it.

    The settings of training are for qat alone.
    """

    title: ClassVar[str] = "Quantization"
    family: ClassVar[Family] = "quantization"
    source: ClassVar[str] = (
        "Jacob et al. 2018 (arXiv:1712.05877), equation 1 and section 3; bias correction: Nagel et al. 2019 "
        "(arXiv:1906.04721), section 4.2"
    )

    mode: Literal["static", "dynamic", "qat", "fp16", "bf16"] = Field(
        "static",
        description="static: int8 with ranges from calibration samples. dynamic: int8 matrix products, for "
        "transformers. qat: static after training with the rounding. fp16, bf16: half the size.",
    )
    engine: Literal["auto", "onnxruntime", "nncf"] = Field(
        "auto",
        description="What writes static int8: Paredown with ONNX Runtime, NNCF (the extra `openvino`), or "
        "auto: the faster of those installed.",
    )
    max_drop: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Points of validation accuracy that may be lost; layers go back to float until it holds.",
    )
    samples: int = Field(
        256, ge=8, le=4096, description="Calibration samples that ranges and biases are taken from."
    )
    weight_bits: Literal["auto", 7, 8] = Field(
        "auto",
        description="Of int8 weights: what the processor that writes the file adds exactly (auto), or 7, "
        "which x86 processors without VNNI add exactly too, at the same speed.",
    )
    keep_in_float: str = Field(
        "",
        max_length=2000,
        description="Layers that stay in float, by name, separated by commas; * stands for anything.",
    )
    keep_faster: bool = Field(
        True, description="Where int8 turns out slower than float32, hand on the float32 model."
    )
    epochs: int = Field(3, ge=1, le=1000, description="For qat: passes over the training samples.")
    learning_rate: float = Field(
        0.001, gt=0, le=1, description="For qat: peak of the cosine schedule, a tenth of that of fine-tuning."
    )

    @property
    def needs_graph(self) -> bool:
        return self.mode == "qat"

    @property
    def trains(self) -> bool:
        return self.mode == "qat"

    @property
    def left(self) -> Mapping[str, float | None]:
        if self.mode == "dynamic":
            return {"size": None}  # next to nothing goes from convolutions, most from transformers
        return {"size": 0.28 if self.mode in INT8 else 0.5}

    @property
    def refuses_exits(self) -> str:
        return {
            "qat": "mode qat trains, and exits are trained by their own step alone; use mode: static",
            "dynamic": "mode dynamic takes its ranges from the batch at hand, and where a sample leaves "
            "would depend on those beside it; use mode: static",
        }.get(self.mode, "")

    @property
    def depends_on_target(self) -> bool:
        return True

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed for qat without a graph, without layers and for a file that is quantized;
        GateFailed where the integers overflow on this processor; SomethingMissing without the engine.
        """
        if model.exits is not None and self.refuses_exits:
            raise StepFailed("quantization", self.refuses_exits, "Use mode: static.")
        if self.mode == "qat" and model.graph is None:
            raise StepFailed("quantization", "mode qat trains, and an ONNX file cannot.", "Use mode: static.")
        start = model
        if self.mode == "qat" and model.graph is not None:  # BatchNorm where it is in the file
            start = dataclasses.replace(model, graph=folded(model.graph))
        file, network = float_network(start, context.data.classes, context.scratch)
        layers, names = self._layers(network), module_names(network, start.graph)
        trials = Trials(model, file, network, context, self.max_drop)
        writers, notes = self._writers(start, network, context)
        if kept := self._kept(names):
            layers = [node for node in layers if node not in kept]
            writers = {name: _except(write, kept) for name, write in writers.items()}
        best = trials.best(writers, layers)
        if best is None:
            notes.append(
                f"Every layer would have to stay in float to lose at most {self.max_drop:g} points; "
                "the model is handed on unchanged."
            )
        else:
            if self.mode in INT8:
                twin = context.scratch / TRAINED / file.name if self.mode == "qat" else file
                check_saturation(best.file, twin, context)
            notes += self._results(best, trials, names)
            if best.ratio < 1 or self.mode not in INT8 or not self.keep_faster:
                return self._made(best.file, model, context, (*model.notes, *notes))
            notes.append(
                f"The float32 model is kept: int8 takes {best.ratio:.2f} times as long on this target. "
                "Set keep_faster to false for the smaller file."
            )
        return dataclasses.replace(model, notes=(*model.notes, *notes))

    def _made(self, file: Path, model: Candidate, context: Context, notes: tuple[str, ...]) -> Candidate:
        if model.exits is None:
            return Candidate(model.spec, onnx=file, notes=notes)
        segments = cut(file, context.scratch / "segments")
        return Candidate(model.spec, segments=tuple(segments), exits=model.exits, notes=notes)

    def _layers(self, network: Network) -> list[str]:
        """Nodes that this mode quantizes. Raises StepFailed where there is none."""
        kinds = ("Gemm", "MatMul") if self.mode == "dynamic" else ("Conv", "Gemm", "MatMul")
        found = [layer.node for layer in network.layers if layer.operator in kinds]
        if not found:
            raise StepFailed(
                "quantization",
                f"mode {self.mode} finds no {' or '.join(kinds)} with constant weights in this model.",
                "Use mode: static." if network.layers else "Leave this step out.",
            )
        return found

    def _kept(self, names: Mapping[str, str]) -> frozenset[str]:
        """Nodes of the layers that `keep_in_float` names; names: of modules, by node. Raises StepFailed."""
        layers = dict.fromkeys(names.values())
        found = named_layers(
            self.keep_in_float, layers, where="quantization: keep_in_float", what="layer with weights"
        )
        if len(found) == len(layers):
            raise StepFailed(
                "quantization: keep_in_float", "every layer is to stay in float.", "Leave this step out."
            )
        return frozenset(node for node, name in names.items() if name in found)

    def _writers(
        self, model: Candidate, network: Network, context: Context
    ) -> tuple[Mapping[str, Writer], list[str]]:
        """The ways to try, by what they are called in the notes, which come with them."""
        if self.mode == "fp16":
            return {"weights and activations as float16": float16(network)}, []
        if self.mode == "bf16":
            note = "bfloat16 is how the weights are stored; ONNX Runtime computes with them in float32."
            return {"weights as bfloat16": bfloat16(network)}, [note]
        scheme = scheme_of_host() if self.weight_bits == "auto" else scheme_with(self.weight_bits)
        notes = [f"Weights are int8 per channel, activations uint8 (U8S8): {scheme.why}."]
        if self.mode == "dynamic":
            return {"matrix products": dynamic(network, scheme)}, notes
        if self.mode == "qat":
            return self._trained(model, network, scheme, context, notes), notes
        writers: dict[str, Writer] = {}
        if self.engine != "nncf":
            calibrated = calibrate(network, scheme, context, self.samples)
            writers |= calibrated.corrected(context, self.samples).writers()
            notes.append(calibrated.note)
        if self.engine == "nncf" or (self.engine == "auto" and nncf_is_installed()):
            writers["by NNCF"] = by_nncf(network, scheme, context, self.samples)
        return writers, notes

    def _trained(
        self, model: Candidate, network: Network, scheme: Scheme, context: Context, notes: list[str]
    ) -> Mapping[str, Writer]:
        """Static int8 of the network after training with its rounding; adds to the notes."""
        assert model.graph is not None
        calibrated = calibrate(network, scheme, context, self.samples)
        graph, found = with_rounding(model.graph, network, calibrated.simulated, scheme)
        graph.requires_grad_(True)
        with zeros_kept(graph, model.sparse):  # a weight that is rounded is a parameter all the same
            history = train(graph, context, settings=self, loss=cross_entropy())
        trained = dataclasses.replace(model, graph=without_rounding(graph))
        _, network = float_network(trained, context.data.classes, context.scratch / TRAINED)
        notes += [
            calibrated.note,
            f"Trained with the rounding of {found} of {len(network.layers)} layers: epoch "
            f"{history.best_epoch} of {self.epochs} was kept, validation accuracy "
            f"{history.start_accuracy:.2%} before, {history.best_accuracy:.2%} after.",
        ]
        return dataclasses.replace(calibrated, network=network).writers(wide=False)

    def _results(self, best: Trial, trials: Trials, names: Mapping[str, str]) -> list[str]:
        notes = []
        in_float = best.in_float | self._kept(names)
        if in_float:
            stayed = sorted(names[node] for node in in_float)
            notes.append(f"{len(stayed)} of {len(names)} layers stayed in float: {', '.join(stayed)}.")
        speed = (
            "all ways out together " * (len(best.accuracy) > 1)
            + f"{1 / best.ratio:.2f} times as fast as float32"
        )
        notes.append(
            f"Quantized {best.name}: validation accuracy {_shares(best.accuracy)} "
            f"(in float32 {_shares(trials.float_accuracy)}); {speed}."
        )
        return notes


def _except(write: Writer, kept: frozenset[str]) -> Writer:
    return lambda in_float: write(in_float | kept)


def _shares(accuracy: np.ndarray) -> str:
    *exits, end = (f"{share:.2%}" for share in accuracy)
    told = [f"exit {number} {share}" for number, share in enumerate(exits, start=1)]
    return ", ".join([*told, f"the end {end}" if told else end])
