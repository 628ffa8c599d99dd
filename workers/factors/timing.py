"""How long layers take on the target, one against the other."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from workers.base import Artefact, Bench, Candidate, Context, Measurement
from workers.data.one_batch import OneBatch
from workers.deploy.export import export_layer
from workers.measures.latency import Latency

#: Enough for an interval of about 2 % on a quiet machine.
SECONDS = 0.3


def latency_ratios(layers: Sequence[nn.Module], inputs: Tensor, context: Context) -> list[float]:
    """For every layer but the first: its latency over that of the first, the upper end of the interval.

    Each is exported as a file of its own and timed as whole models are. inputs: what reaches the layers in
    one call of the model. What a call of the runtime costs is in both times, so ratios are rather too near
    to 1.
    """
    with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
        artefacts = []
        for index, layer in enumerate(layers):
            file = Path(folder) / f"{index}.onnx"
            export_layer(layer, inputs.shape[1:], file)
            artefacts.append(Artefact(file, Candidate(context.original.spec, onnx=file)))
        target = context.target.model_copy(update={"batch": len(inputs)})
        bench = Bench(OneBatch(inputs), context.runtime, target, lambda _: None)
        taken = Latency(seconds=SECONDS).take(artefacts, bench)
    return [_upper_end(found) for found in taken[1:]]


def _upper_end(measurements: Sequence[Measurement]) -> float:
    high = next(m.high for m in measurements if m.name == "latency_ratio")
    assert high is not None
    return high
