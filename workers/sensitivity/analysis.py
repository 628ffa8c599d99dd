"""Layer by layer: prune it alone, quantize it alone, ask the same samples again, and time the files.

No accuracy is won back by training: what is seen is what the layer itself carries (Han et al. 2015,
arXiv:1506.02626, section 3.4; Li et al. 2017, arXiv:1608.08710, section 3.2; for quantization Dong et al.
2019, HAWQ, arXiv:1905.03696, which estimates by second derivatives what is measured here). Channels go by
their l2 norm.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.base import Bench, Candidate, Context, Progress
from workers.deploy.export import export_onnx
from workers.errors import StepFailed
from workers.graph.layer_roles import LAYERS
from workers.host import logical_cores
from workers.importance import IMPORTANCES
from workers.measures.latency import Latency
from workers.pruning.choosing import choose
from workers.pruning.following import copied, follow
from workers.pruning.groups import CannotFollow, Group, cut
from workers.pruning.search import sample_input
from workers.quantization.answers import divergence
from workers.sensitivity.integers import OneByOne
from workers.sensitivity.table import INT8, SHARES, Asked, Cell, Row, Table, ordered, pruned_by
from workers.turns import training_turn

#: Of calls per file and row.
LATENCY = Latency(seconds=0.3)
BATCH = 64
#: Samples are held in memory.
SAMPLES_BYTES = 256 << 20
OVER = "The time for timing ({0:g} s) was over before every layer had a time."


@dataclass(frozen=True)
class _Made:
    """A file in which one layer is changed; None where that was not possible, for this reason."""

    change: str
    share: float | None
    file: Path | None
    why: str = ""


class Analysis:
    """Everything that no layer changes, then a row per layer.

    candidate: with a graph. keep: takes the table whenever it has one more row. known: of an earlier attempt.
    """

    def __init__(
        self,
        candidate: Candidate,
        context: Context,
        asked: Asked,
        *,
        keep: Callable[[Table], None] = lambda _: None,
        known: Table | None = None,
    ) -> None:
        assert candidate.graph is not None
        self.candidate, self.graph, self.context, self.asked = candidate, candidate.graph, context, asked
        self.keep = keep
        self.sample = sample_input(candidate.spec, context.seed)
        self.layers = [name for name, module in self.graph.named_modules() if isinstance(module, LAYERS)]
        self.rows = {} if known is None else {row.layer: row for row in known.rows}
        self.timed_s = 0.0 if known is None else known.timed_s
        self.notes: list[str] = []

    def run(self) -> Table:
        """Raises StepFailed where nothing of the network can be pruned or quantized."""
        self._tell("reading validation samples", 0.0)
        self.inputs, self.labels = self._samples()
        self.base = self.context.scratch / "base.onnx"
        export_onnx(self.candidate, self.base, self.context.data.classes)
        self.expected = self._answers(self.base)
        groups, integers = self._groups(), self._integers()
        if not groups and integers is None:
            raise StepFailed("sensitivity", " ".join(self.notes), "Choose another model.")
        for number, layer in enumerate(self.layers):
            if layer not in self.rows:
                self._tell(f"{layer}, layer {number + 1} of {len(self.layers)}", number / len(self.layers))
                self.rows[layer] = self._row(layer, groups.get(layer), integers)
                self.keep(self._table(whole=False))
        table = self._table(whole=True)
        self.keep(table)
        return table

    def _table(self, *, whole: bool) -> Table:
        cells = [cell for row in self.rows.values() for cell in row.cells]
        untimed = any(cell.ratio is None and not cell.why for cell in cells)
        return Table(
            accuracy=self._accuracy(self.expected),
            samples=len(self.labels),
            rows=ordered(self.rows.values(), self.layers),
            timed_s=self.timed_s,
            notes=(*self.notes, *[OVER.format(self.asked.timing_seconds)] * untimed),
            whole=whole,
        )

    def _samples(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, C, H, W) and (N,): the same ones for every cell, drawn from validation."""
        data, seed = self.context.data, self.context.seed
        most = min(self.asked.samples, SAMPLES_BYTES // (4 * self.sample[0].numel()))
        found, count = [], 0
        for inputs, _ in data.batches("validation", BATCH, shuffle=seed):
            found.append(inputs.numpy())
            count += len(inputs)
            if count >= most:
                break
        order = data.order("validation", seed)[:most]
        return np.concatenate(found)[:most], data.labels("validation")[order]

    def _groups(self) -> Mapping[str, Group]:
        """By every layer in them."""
        self._tell("following channels", 0.0)
        scores = IMPORTANCES["l2"]().scores(self.graph, self.context)
        try:
            followed = follow(self.graph, self.sample, scores, frozenset())
        except StepFailed as error:
            self.notes.append(f"No layer was pruned: {error.what}")
            return {}
        self.notes += followed.notes
        judged = [group for group in followed.groups if len(group.scores)]
        return {layer: group for group in judged for layer in group.layers}

    def _integers(self) -> OneByOne | None:
        self._tell("finding ranges for int8", 0.0)
        try:
            return OneByOne(self.candidate, dataclasses.replace(self.context, tell=lambda _: None))
        except StepFailed as error:
            self.notes.append(f"No layer was quantized: {error.what}")
            return None

    def _row(self, layer: str, group: Group | None, integers: OneByOne | None) -> Row:
        width = int(self.graph.get_submodule(layer).weight.shape[0])  # type: ignore[index]
        made: list[_Made] = []
        if group is not None and group.root == layer:
            made += [self._pruned(group, share) for share in SHARES]
        if integers is not None:
            made.append(self._quantized(layer, integers))
        ratios = self._ratios([one.file for one in made if one.file is not None])
        cells = tuple(self._cell(one, None if one.file is None else ratios.get(one.file)) for one in made)
        return Row(
            layer=layer,
            root="" if group is None else group.root,
            coupled=() if group is None else tuple(other for other in group.layers if other != layer),
            width=width,
            cells=cells,
        )

    def _quantized(self, layer: str, integers: OneByOne) -> _Made:
        if layer not in integers.layers:
            return _Made(INT8, None, None, "This layer was not found again in the exported file.")
        return _Made(INT8, None, integers.save(layer, self.context.scratch / "int8.onnx"))

    def _pruned(self, group: Group, share: float) -> _Made:
        name = pruned_by(share)
        dropped = choose([group], share, "uniform", 1)
        if not any(dropped.values()):
            return _Made(name, share, None, f"{group.width} channels are too few for that.")
        graph = copied(self.graph)
        try:
            cut(graph, self.sample, dropped)
        except CannotFollow as error:
            return _Made(name, share, None, f"The cut did not pass its comparison: {error}.")
        file = self.context.scratch / f"pruned-{share:g}.onnx"
        export_onnx(Candidate(self.candidate.spec, graph), file, self.context.data.classes)
        return _Made(name, share, file)

    def _cell(self, made: _Made, ratio: float | None) -> Cell:
        if made.file is None:
            return Cell(change=made.change, share=made.share, why=made.why)
        answers = self._answers(made.file)
        made.file.unlink()
        return Cell(
            change=made.change,
            share=made.share,
            accuracy=self._accuracy(answers),
            divergence=divergence(self.expected, answers),
            ratio=ratio,
        )

    def _ratios(self, files: list[Path]) -> Mapping[Path, float]:
        """Beside the unchanged file, in one session; none once the time for it is over."""
        if not files or self.timed_s >= self.asked.timing_seconds:
            return {}
        context, told = self.context, list[float]()
        # The first word comes when the host is ours: the wait for others is not counted.
        bench = Bench(
            context.data, context.runtime, context.target, lambda _: told.append(time.perf_counter())
        )
        _, *ratios = LATENCY.ratios([self.base, *files], bench)
        self.timed_s += time.perf_counter() - told[0]
        return dict(zip(files, ratios, strict=True))

    def _answers(self, file: Path) -> np.ndarray:
        """(N, classes) logits."""
        session = self.context.runtime.open(file, threads=logical_cores())
        found = []
        for start in range(0, len(self.inputs), BATCH):
            with training_turn():
                found.append(session.run(self.inputs[start : start + BATCH]))
        return np.concatenate(found)

    def _accuracy(self, answers: np.ndarray) -> float:
        return float((answers.argmax(axis=1) == self.labels).mean())

    def _tell(self, text: str, share: float) -> None:
        self.context.tell(Progress(text, share))
