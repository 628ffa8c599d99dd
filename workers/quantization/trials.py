"""Ways to write one network with fewer bits, compared with its float file: what each costs and gains."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.base import Bench, Candidate, Context, Progress
from workers.measures.latency import Latency
from workers.quantization.answers import accuracy, logits
from workers.quantization.fallback import ranked_layers, shortest_prefix
from workers.quantization.network import Network
from workers.quantization.staged import save, timed_files
from workers.quantization.writing import Writer

#: Seconds of calls per file; the measurement of the finished stage takes four times as long.
LATENCY = Latency(seconds=1.0)


@dataclass(frozen=True)
class Trial:
    """One way, as a file.

    accuracy: (exits + 1,), of each exit and the end. ratio: its time as a multiple of float32, with exits
    that of all ways out together. in_float: nodes left as they were.
    """

    name: str
    write: Writer
    file: Path
    accuracy: np.ndarray
    ratio: float
    in_float: frozenset[str] = frozenset()


class Trials:
    """Compares what writers make of a network with the float file, on validation and on the clock.

    model: what the network was made from. max_drop: points of accuracy that may be lost against the float
    file, at the end and at every exit.
    """

    def __init__(
        self, model: Candidate, float_file: Path, network: Network, context: Context, max_drop: float
    ) -> None:
        self.model, self.float_file, self.network = model, float_file, network
        self.context, self.max_drop = context, max_drop
        self.float_accuracy = self._accuracy(float_file)

    def best(self, writers: Mapping[str, Writer], layers: Sequence[str]) -> Trial | None:
        """The fastest that is accurate enough; else the most accurate with as few `layers` in float as that
        takes. None when all of them would have to be.

        Where those that are accurate enough gain no time, the fastest of all is tried in that way, too.
        """
        trials = self._tried(writers)
        good = [trial for trial in trials if self.drop(trial.accuracy) <= self.max_drop]
        if good:
            best, fastest = (min(some, key=lambda trial: trial.ratio) for some in (good, trials))
            if best.ratio < 1 or fastest.ratio >= 1:
                return best
            repaired = self._with_float_layers(fastest, layers)
            return repaired if repaired is not None and repaired.ratio < best.ratio else best
        return self._with_float_layers(min(trials, key=lambda trial: self.drop(trial.accuracy)), layers)

    def drop(self, reached: np.ndarray) -> float:
        """Most points lost against float at an exit or the end; rounded, so that 0.5 asked is 0.5 allowed."""
        return round(100 * float((self.float_accuracy - reached).max()), 6)

    def _tried(self, writers: Mapping[str, Writer]) -> list[Trial]:
        files = [self._written(write, f"trial{number}.onnx") for number, write in enumerate(writers.values())]
        ratios = self._ratios(files)
        return [
            Trial(name, write, file, self._accuracy(file), ratio)
            for (name, write), file, ratio in zip(writers.items(), files, ratios, strict=True)
        ]

    def _with_float_layers(self, trial: Trial, layers: Sequence[str]) -> Trial | None:
        ranked = ranked_layers(self.network, trial.write, layers, self.float_file, self.context)
        in_float = shortest_prefix(ranked, lambda some: self._good_with(trial.write, some))
        if in_float is None:
            return None
        file = self._written(trial.write, "mixed.onnx", in_float)
        (ratio,) = self._ratios([file])
        return Trial(trial.name, trial.write, file, self._accuracy(file), ratio, in_float)

    def _good_with(self, write: Writer, in_float: frozenset[str]) -> bool:
        self.context.tell(Progress(f"validating with {len(in_float)} layers in float", 0.9))
        return self.drop(self._accuracy(self._written(write, "mixed.onnx", in_float))) <= self.max_drop

    def _accuracy(self, file: Path) -> np.ndarray:
        return accuracy(logits(file, self.context), self.context)

    def _written(self, write: Writer, name: str, in_float: frozenset[str] = frozenset()) -> Path:
        file = self.context.scratch / name
        save(write(in_float), file)
        return file

    def _ratios(self, files: Sequence[Path]) -> list[float]:
        self.context.tell(Progress("timing against float32", 0.7))
        context = self.context
        bench = Bench(context.data, context.runtime, context.target, lambda _: None)
        with ExitStack() as opened:
            paths = [
                opened.enter_context(timed_files(file, self.model, context.data.classes, context.scratch))
                for file in (self.float_file, *files)
            ]
            times = LATENCY.ratios([path for some in paths for path in some], bench)
        float32, *others = np.reshape(times, (len(paths), -1)).sum(axis=1).tolist()
        return [other / float32 for other in others]
