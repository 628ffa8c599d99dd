"""How long files take against the first of them, whole and layer by layer."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from workers.base import Bench, ModelSpec, Place, Progress
from workers.data.one_batch import OneBatch
from workers.measures.latency import Latency
from workers.profiling.bookkeeping import typical
from workers.profiling.matching import Layers
from workers.profiling.recording import Recording, record
from workers.writing import written_whole

#: Of rounds per file, and how many are timed in one turn; between turns others may measure.
LATENCY_SECONDS, AT_ONCE = 0.8, 6
PROFILE_SECONDS = 0.4


class Took(TypedDict):
    """As in `workers.prediction.table.Row`."""

    ratio: float
    layers: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """layers: names of the network's layers, in the order of their calls. kept: what is known already, by
    the names of the files, which tell what is in them; lets a job go on that was broken off.
    """

    place: Place
    spec: ModelSpec
    layers: Sequence[str]
    tell: Callable[[Progress], None]
    kept: Path

    def of(self, files: Sequence[Path]) -> dict[Path, Took]:
        """The ratio is to the first of them."""
        known = self._known()
        for start in range(0, len(files), AT_ONCE):
            part = [file for file in files[start : start + AT_ONCE] if file.name not in known]
            for file, took in self._took(files[0], part, start / len(files)):
                known[file.name] = took
                with written_whole(self.kept) as partial:
                    partial.write_text(json.dumps(known))
        return {file: known[file.name] for file in files}

    def _known(self) -> dict[str, Took]:
        try:
            return dict(json.loads(self.kept.read_text()))
        except (OSError, ValueError):  # none yet, or nothing to go by
            return {}

    def _took(self, first: Path, files: Sequence[Path], share: float) -> Iterator[tuple[Path, Took]]:
        """share: of all files that are timed already."""
        if not files:
            return
        self.tell(Progress(f"timing networks: {share:.0%}", 0.4 + 0.5 * share))
        target = self.place.target
        bench = Bench(OneBatch(self._noise), self.place.runtime, target, lambda _: None)
        ratios = Latency(seconds=LATENCY_SECONDS).ratios([first, *files], bench)[1:]
        for file, ratio in zip(files, ratios, strict=True):
            self.tell(Progress(f"timing layers of networks: {share:.0%}", 0.4 + 0.5 * share))
            exact = 1.0 if file == first else ratio
            noise = [self._noise.numpy()]
            (recording,) = record([file], noise, seconds=PROFILE_SECONDS, threads=target.threads)
            times = layer_times_us(file, recording, self.layers)
            scale = exact / sum(times.values())  # the call itself and going from one to the next are in it
            yield file, {"ratio": exact, "layers": {layer: time * scale for layer, time in times.items()}}

    @property
    def _noise(self) -> Tensor:
        shape = (self.place.target.batch, *self.spec.preprocessing.shape)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def layer_times_us(file: Path, recording: Recording, layers: Sequence[str]) -> dict[str, float]:
    """Microseconds of each layer, with what runs behind it until the next one: activations, sums, pooling.

    layers: names of the network's layers, in the order of their calls; a factorised one has parts 0, 1 and 2.
    """
    matched = Layers(file, list(recording.operators.values()))
    calls = [call for sitting in recording.calls for call in sitting]
    found: dict[str, float] = defaultdict(float)
    last = layers[0]
    for key, operator in recording.operators.items():
        layer = matched.of(operator)
        name = layer.name if layer is not None and layer.weighted else last
        last = next((known for known in (name, name.rpartition(".")[0]) if known in layers), last)
        found[last] += typical([call[key] for call in calls if key in call])
    return dict(found)
