"""Store and compute in fewer bits: int8 by calibration, by the call or by training, or float16."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx
from pydantic import Field

from workers.base import Bench, Candidate, Context, Family, Method, Progress
from workers.errors import StepFailed
from workers.measures.latency import Latency
from workers.quantization.answers import accuracy, check_saturation, logits
from workers.quantization.fallback import ranked_layers, shortest_prefix
from workers.quantization.network import float_network
from workers.quantization.scheme import scheme_of_host
from workers.quantization.static import static_writers
from workers.quantization.writing import Writer, dynamic, half
from workers.training.settings import TrainingSettings

#: Seconds of calls per file; the full measurement of the finished stage takes four times as long.
LATENCY = Latency(seconds=1.0)


class Quantization(TrainingSettings, Method):
    """The exported file is rewritten with fewer bits, compared with float and timed against it."""

    title: ClassVar[str] = "Quantization"
    family: ClassVar[Family] = "quantization"
    source: ClassVar[str] = (
        "Jacob et al. 2018 (arXiv:1712.05877), equation 1; bias correction: Nagel et al. 2019 "
        "(arXiv:1906.04721), section 4.2"
    )

    mode: Literal["static", "dynamic", "fp16"] = Field(
        "static",
        description="static: int8 with ranges from calibration samples. dynamic: int8 matrix products, for "
        "transformers. fp16: half the size.",
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
    keep_faster: bool = Field(
        True, description="Where int8 turns out slower than float32, hand on the float32 model."
    )

    @property
    def needs_graph(self) -> bool:
        return False

    @property
    def depends_on_target(self) -> bool:
        return True

    def apply(self, model: Candidate, context: Context) -> Candidate:
        return _Work(self, model, context).run()


@dataclass(frozen=True)
class _Trial:
    """One way to write the network, as a file."""

    name: str
    write: Writer
    file: Path
    accuracy: float
    #: Time as a multiple of float32.
    ratio: float
    in_float: frozenset[str] = frozenset()


class _Work:
    def __init__(self, settings: Quantization, model: Candidate, context: Context) -> None:
        self.settings, self.model, self.context = settings, model, context
        self.notes: list[str] = []
        self.float_file, self.network = float_network(model, context.data.classes, context.scratch)
        self.float_accuracy = accuracy(logits(self.float_file, context), context)

    def run(self) -> Candidate:
        trials = self._tried(self._writers())
        good = [trial for trial in trials if self._drop(trial.accuracy) <= self.settings.max_drop]
        best = min(good, key=lambda trial: trial.ratio) if good else self._with_float_layers(trials)
        if best is None:
            return self._unchanged()
        if self.settings.mode != "fp16":
            check_saturation(best.file, self.context)
        self._say(best)
        if best.ratio >= 1 and self.settings.mode != "fp16" and self.settings.keep_faster:
            self.notes.append(
                f"The float32 file is kept: int8 takes {best.ratio:.2f} times as long on this target. "
                "Set keep_faster to false to keep the smaller file."
            )
            return self._unchanged()
        return Candidate(self.model.spec, onnx=best.file, notes=(*self.model.notes, *self.notes))

    def _writers(self) -> Mapping[str, Writer]:
        if self.settings.mode == "fp16":
            return {"float16": half(self.network)}
        scheme = scheme_of_host()
        self._check_layers()
        self.notes.append(f"Weights are int8 per channel, activations uint8 (U8S8): {scheme.why}.")
        if self.settings.mode == "dynamic":
            return {"dynamic": dynamic(self.network, scheme)}
        writers, notes = static_writers(self.network, scheme, self.context, self.settings.samples)
        self.notes += notes
        return writers

    def _check_layers(self) -> None:
        dynamic_mode = self.settings.mode == "dynamic"
        if not any(layer.operator != "Conv" or not dynamic_mode for layer in self.network.layers):
            raise StepFailed(
                "quantization",
                f"mode {self.settings.mode} finds no {'matrix product' if dynamic_mode else 'layer'} with "
                "constant weights in this model.",
                "Use mode: static." if self.network.layers else "Leave this step out.",
            )

    def _tried(self, writers: Mapping[str, Writer]) -> list[_Trial]:
        """Every way written, timed side by side and compared on validation."""
        files = [self._written(write, f"trial{n}.onnx") for n, write in enumerate(writers.values())]
        ratios = self._ratios(files)
        return [
            _Trial(name, write, file, accuracy(logits(file, self.context), self.context), ratio)
            for (name, write), file, ratio in zip(writers.items(), files, ratios, strict=True)
        ]

    def _with_float_layers(self, trials: list[_Trial]) -> _Trial | None:
        """The most accurate way, with the fewest layers in float that bring it within max_drop."""
        trial = max(trials, key=lambda trial: trial.accuracy)
        layers = [layer.node for layer in self.network.layers if self._is_quantized(layer.operator)]
        ranked = ranked_layers(self.network, trial.write, layers, self.float_file, self.context)
        in_float = shortest_prefix(ranked, lambda some: self._good_with(trial.write, some))
        if in_float is None:
            self.notes.append(
                f"Every layer would have to stay in float to lose at most {self.settings.max_drop:g} points; "
                f"with all of them in fewer bits {self._drop(trial.accuracy):.2f} are lost. The model is "
                "handed on unchanged."
            )
            return None
        file = self._written(trial.write, "mixed.onnx", in_float)
        reached = accuracy(logits(file, self.context), self.context)
        (ratio,) = self._ratios([file])
        return _Trial(trial.name, trial.write, file, reached, ratio, in_float)

    def _is_quantized(self, operator: str) -> bool:
        return self.settings.mode != "dynamic" or operator != "Conv"

    def _good_with(self, write: Writer, in_float: frozenset[str]) -> bool:
        self.context.tell(Progress(f"validating with {len(in_float)} layers in float", 0.9))
        file = self._written(write, "trial.onnx", in_float)
        return self._drop(accuracy(logits(file, self.context), self.context)) <= self.settings.max_drop

    def _drop(self, reached: float) -> float:
        """Points lost against float; rounded, so that 0.5 asked is 0.5 allowed."""
        return round(100 * (self.float_accuracy - reached), 6)

    def _written(self, write: Writer, name: str, in_float: frozenset[str] = frozenset()) -> Path:
        file = self.context.scratch / name
        model = write(in_float)
        del model.graph.value_info[:]
        onnx.save(model, file)
        return file

    def _ratios(self, files: list[Path]) -> list[float]:
        self.context.tell(Progress("timing against float32", 0.6))
        context = self.context
        bench = Bench(context.data, context.runtime, context.target, lambda _: None)
        return LATENCY.ratios([self.float_file, *files], bench)[1:]

    def _say(self, best: _Trial) -> None:
        if best.in_float:
            stayed = sorted(layer.weight for layer in self.network.layers if layer.node in best.in_float)
            self.notes.append(f"{len(stayed)} layers stayed in float: {', '.join(stayed)}.")
        self.notes.append(
            f"Quantized {best.name}: validation accuracy {self.float_accuracy:.2%} in float32, "
            f"{best.accuracy:.2%} now; {1 / best.ratio:.2f} times as fast as float32."
        )

    def _unchanged(self) -> Candidate:
        return dataclasses.replace(self.model, notes=(*self.model.notes, *self.notes))
