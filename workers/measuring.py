"""What is measured of finished stages, in every place that was asked for.

A runtime that cannot run a stage, or gives other answers than the exported file, has no numbers of it: a
measurement without a value, whose mark is the sentence that says why.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from workers.base import (
    FASTEST,
    Artefact,
    Bench,
    Candidate,
    Comparison,
    LabelledData,
    Measurement,
    Place,
    Progress,
    Target,
)
from workers.calibration.calibrate import REPORT
from workers.calibration.moving import mean_latency, read_report
from workers.catalog import MEASURES
from workers.deploy.parity import parity_inputs, why_not
from workers.places import Choice, usual
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.stages import Stage, Store, place_of

Tell = Callable[[Progress], None]
#: Sentences by the stage's key and the target.
Refusals = Mapping[tuple[str, Target], str]


@dataclass(frozen=True)
class Measuring:
    """choice: the places. reopen: gives the candidate of a kept stage."""

    choice: Choice
    data: LabelledData
    store: Store
    reopen: Callable[[Stage], Candidate]

    def alone(self, stage: Stage, tell: Tell) -> Stage:
        """Add what is measured of a stage as soon as it is there."""
        everywhere = self._taken(stage, None, tell)
        return self.in_places(dataclasses.replace(stage, measurements=everywhere), tell)

    def in_places(self, stage: Stage, tell: Tell) -> Stage:
        """The same without what no place changes: that is known from where the stage was made."""
        # The fastest place is known at the end; until then a stage shows what the usual one says.
        places = self.choice.places if self.choice.each else self.choice.places[:1]
        taken = [m for place in places for m in self._taken(stage, place, tell)]
        return dataclasses.replace(stage, measurements=(*stage.measurements, *taken))

    def together(self, stages: Sequence[Stage], tell: Tell) -> list[Stage]:
        """Add what only compares side by side: all stages in all places, from one session."""
        for measure in MEASURES.values():
            if issubclass(measure, Comparison):
                stages = self._compared(measure(), stages, tell)
        return [stage if stage.exits is None else _with_mean(stage) for stage in stages]

    def _taken(self, stage: Stage, place: Place | None, tell: Tell) -> tuple[Measurement, ...]:
        """What depends on the runtime, or with no place what does not; kept for the next run."""
        where = None if place is None else place_of(place.target, place.runtime)
        taken = self.store.measured(stage.key, where)
        if taken is None:
            taken = self._take(stage, place, tell)
            self.store.keep_measured(stage.key, where, taken)
        return taken

    def _take(self, stage: Stage, place: Place | None, tell: Tell) -> tuple[Measurement, ...]:
        why = None if place is None else self._why_not(stage, place, tell)
        if place is not None and why is not None:
            return (_without("accuracy", place.target, why),)
        at = place or self.choice.places[0]
        bench = Bench(self.data, at.runtime, at.target, tell)
        artefact = Artefact(stage.file, self.reopen(stage))
        return tuple(
            measurement
            for measure in MEASURES.values()
            if not issubclass(measure, Comparison) and measure.in_runtime == (place is not None)
            for measurement in measure().take([artefact], bench)[0]
        )

    def _why_not(self, stage: Stage, place: Place, tell: Tell) -> str | None:
        """The sentence on why there are no numbers in a place; the reference itself says it as an error."""
        if place.target == usual(place.target):
            return None
        tell(Progress(f"comparing with the answers of {place.runtime.title}", 0.0))
        inputs, exits = parity_inputs(self.data), stage.exits is not None
        return why_not(stage.file, place.runtime, OnnxRuntime(), inputs, one_by_one=exits)

    def _compared(self, measure: Comparison, stages: Sequence[Stage], tell: Tell) -> list[Stage]:
        refused = self._refused(stages, tell)
        groups = []
        for place in self.choice.places:
            able = [stage for stage in stages if (stage.key, place.target) not in refused]
            if stages[0] in able:  # without the baseline there is nothing to compare with
                artefacts = [Artefact(stage.file, self.reopen(stage)) for stage in able]
                groups.append((artefacts, Bench(self.data, place.runtime, place.target, tell)))
        target = _fastest_of(self.choice.places) if self.choice.fastest else None
        taken = measure.compare(groups, target) if groups else []
        best = taken[-1] if taken and target else {}
        made = []
        for stage in stages:
            numbers = [m for m in stage.measurements if m.target is None]
            if self.choice.each:
                numbers = [*stage.measurements]
                numbers += [m for found in taken[: len(groups)] for m in found.get(stage.file, ())]
                numbers += [
                    _without("latency_p50", target, why)
                    for (key, target), why in refused.items()
                    if key == stage.key
                ]
            numbers += self._fastest(stage, best.get(stage.file, ()), tell)
            made.append(dataclasses.replace(stage, measurements=tuple(numbers)))
        return made

    def _refused(self, stages: Sequence[Stage], tell: Tell) -> Refusals:
        found = {}
        for stage in stages:
            for place in self.choice.places:
                known = [m for m in stage.measurements if m.target == place.target]
                why = next((m.marks[0] for m in known if m.value is None), None)
                if not known:  # nothing was asked of this place yet
                    why = self._why_not(stage, place, tell)
                if why is not None:
                    found[stage.key, place.target] = why
        return found

    def _fastest(self, stage: Stage, best: Sequence[Measurement], tell: Tell) -> list[Measurement]:
        """The latencies of the fastest place, and the accuracy there."""
        if not best:
            return []
        engine, target = best[0].marks[0], best[0].target
        place = next(place for place in self.choice.places if place.target.engine == engine)
        return [
            *(
                m.model_copy(update={"target": target, "marks": (engine, *m.marks)})
                for m in self._taken(stage, place, tell)
            ),
            *best,
        ]


def _with_mean(stage: Stage) -> Stage:
    """Where the exits were calibrated, the mean over all validation samples is known from the times of the
    ways out: it replaces that of the calls that were timed, but not what these say of the machine.
    """
    asked = {m.target for m in stage.measurements}
    means = [m for m in mean_latency(read_report(stage.file.with_name(REPORT))) if m.target in asked]
    instead_of = {(m.name, m.target) for m in means}
    marks = {(m.name, m.target): m.marks for m in stage.measurements}
    means = [
        m.model_copy(update={"marks": tuple(dict.fromkeys((*m.marks, *marks.get((m.name, m.target), ()))))})
        for m in means
    ]
    kept = (m for m in stage.measurements if (m.name, m.target) not in instead_of)
    return dataclasses.replace(stage, measurements=(*kept, *means))


def _fastest_of(places: Sequence[Place]) -> Target:
    """The target that stands for whichever of these is fastest."""
    targets = [place.target for place in places]
    tried, devices = dict.fromkeys(t.engine for t in targets), dict.fromkeys(t.device for t in targets)
    changes = {"runtime": FASTEST, "version": ", ".join(tried), "device": ", ".join(devices)}
    return targets[0].model_copy(update=changes)


def _without(name: Literal["accuracy", "latency_p50"], target: Target, why: str) -> Measurement:
    """A number that there is none of."""
    unit, better = ("share", "higher") if name == "accuracy" else ("ms", "lower")
    return Measurement(
        name=name, value=None, unit=unit, better=better, split="validation", target=target, marks=(why,)
    )
