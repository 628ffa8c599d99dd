"""Where a run's numbers are taken: the runtimes of this machine, and what a person may ask for.

A name is a runtime's id, with the device behind a colon where it is not the usual one (`onnxruntime:cuda`);
`all` asks for every one that is here, `fastest` for the one that is fastest for each stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from workers.base import FASTEST, Frozen, Place, Runtime, Target
from workers.catalog import RUNTIMES
from workers.errors import ParedownError, SomethingMissing
from workers.host import host_facts

#: Steps that choose by time take this one where another one is not known yet, or cannot time single layers.
USUAL = "onnxruntime"
ALL = "all"
TOGETHER = (FASTEST, ALL)


class RuntimeFacts(Frozen):
    """A runtime as this machine has it. missing: why it does not work here; install: the command for that."""

    id: str
    title: str
    version: str
    devices: tuple[str, ...]
    missing: str
    install: str

    @property
    def names(self) -> tuple[str, ...]:
        """What `choose` takes for it, one per device; of one that does not work here its id alone."""
        return (self.id, *(f"{self.id}:{device}" for device in self.devices[1:]))


def runtime_facts() -> list[RuntimeFacts]:
    """Of every runtime that Paredown knows, those that are here first."""
    found = []
    for name, runtime in RUNTIMES.items():
        missing = runtime.missing() or ""
        found.append(
            RuntimeFacts(
                id=name,
                title=runtime.title,
                version="" if missing else runtime.version(),
                devices=() if missing else runtime.devices(),
                missing=missing,
                install=runtime.install,
            )
        )
    return sorted(found, key=lambda facts: (bool(facts.missing), facts.id != USUAL, facts.id))


@dataclass(frozen=True)
class Choice:
    """What was asked for.

    places: all that is measured in, the usual runtime first. steps: where steps that choose by time do so.
    each: every place is a target of its own. fastest: the fastest of them for each stage is one too.
    note: why the steps' times come from elsewhere; empty where they do not.
    """

    places: tuple[Place, ...]
    steps: Place
    each: bool = True
    fastest: bool = False
    note: str = ""


def choose(name: str, threads: int, target: str = "") -> Choice:
    """What `--runtime NAME` asks for on this machine. Raises ParedownError.

    target: name of this machine, for a run that was made on another one.
    """
    here = present()
    if name not in TOGETHER:
        return _one(name, here, threads, target)
    places = tuple(_place(runtime, threads, target) for runtime in here.values())
    note = f"The times that this step chose by were taken in {places[0].runtime.title}."
    return Choice(places, places[0], each=name == ALL, fastest=True, note=note)


def of_steps(name: str) -> str:
    """The runtime that steps choose by time in where `name` is asked for, as `choose` has it."""
    known = RUNTIMES.get(name.partition(":")[0])
    return USUAL if name in TOGETHER or known is None or known.whole_models_only else name


def present() -> Mapping[str, Runtime]:
    """What works on this machine, by name, the usual one first."""
    found: dict[str, Runtime] = {}
    for facts in runtime_facts():
        for name, device in zip(facts.names, facts.devices, strict=False):
            found[name] = RUNTIMES[facts.id]()
            found[name].device = device
    return found


def usual(target: Target) -> Target:
    """The same place with the usual runtime on the processor; itself where that is what it has."""
    runtime = RUNTIMES[USUAL]()
    if (target.runtime, target.device) == (USUAL, runtime.device):
        return target
    changes = {"runtime": USUAL, "device": runtime.device, "version": runtime.version()}
    return target.model_copy(update=changes)


def _one(name: str, here: Mapping[str, Runtime], threads: int, target: str) -> Choice:
    if name not in here:
        known = RUNTIMES.get(name)
        if known is None:
            names = ", ".join([*here, *TOGETHER])
            raise ParedownError(f"runtime {name}", "is not known here.", f"The names are {names}.")
        raise SomethingMissing(
            f"runtime {name}", known.missing() or "does not work here.", f"{known.install}."
        )
    place, steps = _place(here[name], threads, target), _place(RUNTIMES[USUAL](), threads, target)
    if not place.runtime.whole_models_only:
        return Choice((place,), place)
    note = (
        f"The times that this step chose by were taken in {steps.runtime.title}: {place.runtime.title} runs "
        "whole models only."
    )
    return Choice((place,), steps, note=note)


def _place(runtime: Runtime, threads: int, name: str) -> Place:
    target = Target(
        name=name,
        host=host_facts().host,
        device=runtime.device,
        runtime=runtime.id(),
        version=runtime.version(),
        threads=threads,
    )
    return Place(runtime, target)
