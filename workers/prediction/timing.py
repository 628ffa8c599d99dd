"""How long files take against the first of them, whole and layer by layer."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from workers.base import Bench, ModelSpec, Place, Progress
from workers.data.one_batch import OneBatch
from workers.measures.latency import Latency
from workers.prediction.profile import layer_times_us

#: Of rounds per file, and how many are timed in one turn; between turns others may measure.
LATENCY_SECONDS, AT_ONCE = 0.4, 6
PROFILED_RUNS = 30


class Took(TypedDict):
    """As in `workers.prediction.table.Row`."""

    ratio: float
    layers: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """layers: names of the network's layers, in the order of their calls. kept: what is known already, by
    the names of the files; lets a job go on that was broken off.
    """

    place: Place
    spec: ModelSpec
    layers: Sequence[str]
    tell: Callable[[Progress], None]
    kept: Path

    def of(self, files: Sequence[Path]) -> dict[Path, Took]:
        """The ratio is to the first of them."""
        known: dict[str, Took] = json.loads(self.kept.read_text()) if self.kept.exists() else {}
        for start in range(0, len(files), AT_ONCE):
            self.tell(Progress(f"timing networks: {start} of {len(files)}", 0.4 + 0.5 * start / len(files)))
            part = files[start : start + AT_ONCE]
            if any(file.name not in known for file in part):
                known |= {file.name: took for file, took in self._took(files[0], part)}
                self.kept.write_text(json.dumps(known))
        return {file: known[file.name] for file in files}

    def _took(self, first: Path, files: Sequence[Path]) -> Iterator[tuple[Path, Took]]:
        target = self.place.target
        bench = Bench(OneBatch(self._noise), self.place.runtime, target, lambda _: None)
        ratios = Latency(seconds=LATENCY_SECONDS).ratios([first, *files], bench)[1:]
        for file, ratio in zip(files, ratios, strict=True):
            exact = 1.0 if file == first else ratio
            times = layer_times_us(
                file, self.layers, self._noise.numpy(), threads=target.threads, runs=PROFILED_RUNS
            )
            # A profiler takes time of its own at every node: what counts is the time without it.
            scale = exact / sum(times.values())
            yield file, {"ratio": exact, "layers": {layer: time * scale for layer, time in times.items()}}

    @property
    def _noise(self) -> Tensor:
        shape = (self.place.target.batch, *self.spec.preprocessing.shape)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
