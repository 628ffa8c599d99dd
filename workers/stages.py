"""What is kept of finished steps: one folder per stage, named by a key of everything the stage depends on.

A stage is there whole or not at all, and is only believed while its files are the ones that were written.
Knows no method and does no step.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

import workers
from workers.base import Candidate, ExitPlan, Measurement, Runtime, Target
from workers.deploy.parity import Parity
from workers.graph.importing import file_sha256
from workers.host import versions
from workers.recipe import Recipe, settings_of, step_id
from workers.writing import written_whole

#: What is left of a run that was killed, and that nobody took up again, goes after this time.
ABANDONED_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Stage:
    """One step as it was carried out; stage 0 is the model as uploaded.

    file: the exported ONNX. seconds: what the step took when it was really done. cached: it was not done
    again this time. sparse, exits: as in `Candidate`; a file cannot tell zeros by chance from those of a
    step.
    """

    index: int
    method: str | None
    settings: Mapping[str, Any]
    key: str
    file: Path
    seconds: float
    cached: bool
    notes: tuple[str, ...]
    parity: Parity | None
    sparse: bool = False
    exits: ExitPlan | None = None
    measurements: tuple[Measurement, ...] = ()

    @property
    def archive(self) -> Path | None:
        """The stage as a trainable `.pt2`; None when the upload was an ONNX file."""
        archive = self.file.with_name("model.pt2")
        return archive if archive.exists() else None

    @property
    def segments(self) -> tuple[Path, ...]:
        """What is computed from exit to exit, each an ONNX file; none for a model without exits."""
        return tuple(sorted(self.file.parent.glob("model.segment*.onnx")))


def stage_keys(recipe: Recipe, place: str, others: Mapping[str, Candidate], **start: object) -> Iterator[str]:
    """One key per stage, the baseline's first; each covers everything that came before it.

    place: see `place_of`; only part of the keys from a step on that chooses by time. others: of these, a step
    depends on the one it asks for. start: what else decides the result, as JSON values.
    """
    key = key_of(start)
    yield key
    for step in recipe.steps:
        decides: list[object] = [key, step_id(step), settings_of(step)]
        if step.depends_on_target:
            decides.append({"place": place})
        if recipe.promises:
            decides.append("half of the validation samples")
        if step.other_model is not None:
            decides.append({"other": identity_of(others[step.other_model])})
        key = _digest(decides)
        yield key


def key_of(*depends: object) -> str:
    """A name of everything, JSON values, that a result depends on; the code and its packages are added."""
    return _digest([depends, code_sha256(), versions()])


def identity_of(model: Candidate) -> dict[str, Any]:
    """What a model is, as JSON values; the name of its file changes nothing."""
    return model.spec.model_dump(mode="json", exclude={"name"})


@cache
def code_sha256() -> str:
    """SHA-256 of the sources under workers/: other code, other results."""
    root = Path(workers.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """The folder where all runs keep their stages."""

    folder: Path

    def clear(self) -> None:
        """Remove what killed runs left behind a week ago."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for suffix in ("partial", "scratch", "lock"):
            for left in self.folder.glob(f"*.{suffix}"):
                with suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > ABANDONED_S:
                        left.unlink() if left.is_file() else shutil.rmtree(left)

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Wait while another process is at this stage."""
        file = self.folder / f"{key}.lock"
        with FileLock(file):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)  # whoever waits for it notices and makes a new one

    def scratch(self, key: str) -> Path:
        """A folder for the step itself, such as its epoch checkpoints; stays until the stage is kept."""
        folder = self.folder / f"{key}.scratch"
        folder.mkdir(exist_ok=True)
        return folder

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """A folder that is kept when the block ends without an error, else removed."""
        partial, kept = self.folder / f"{key}.partial", self.folder / key
        for left in (partial, kept):  # of a killed process, or damaged
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            partial.rename(kept)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(OSError):
                self.scratch(key).rmdir()  # only when it is empty
            raise
        shutil.rmtree(self.scratch(key))

    def find(self, key: str) -> Stage | None:
        """The stage without its measurements; None when it is not there or its files were changed."""
        folder = self.folder / key
        try:
            written = json.loads((folder / "stage.json").read_text())
            if written.pop("files") != _files(folder):
                return None
            written["notes"] = tuple(written["notes"])
            if written["parity"] is not None:
                written["parity"] = Parity.model_validate(written["parity"])
            if written["exits"] is not None:
                written["exits"] = ExitPlan.model_validate(written["exits"])
            return Stage(**written, key=key, file=folder / "model.onnx", cached=True)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def measured(self, key: str, place: str | None) -> tuple[Measurement, ...] | None:
        """What was measured of a stage in a `place_of` measuring, or that is the same in all places.

        None when nothing was.
        """
        try:
            written = json.loads(self._measurements(key, place).read_text())
            return tuple(Measurement.model_validate(m) for m in written)
        except (OSError, ValueError, TypeError):
            return None

    def keep_measured(self, key: str, place: str | None, measurements: Sequence[Measurement]) -> None:
        file = self._measurements(key, place)
        with written_whole(file) as partial:
            partial.write_text(json.dumps([m.model_dump(mode="json") for m in measurements]))

    def _measurements(self, key: str, place: str | None) -> Path:
        return self.folder / key / ("measured.json" if place is None else f"measured-{place}.json")


def write_stage(stage: Stage, folder: Path) -> None:
    """Describe the files of `folder`; the last thing that is written there."""
    written = {
        field.name: getattr(stage, field.name)
        for field in dataclasses.fields(stage)
        if field.name not in ("key", "file", "cached", "parity", "measurements")
    }
    written["parity"] = None if stage.parity is None else stage.parity.model_dump()
    written["exits"] = None if stage.exits is None else stage.exits.model_dump()
    written["files"] = _files(folder)
    (folder / "stage.json").write_text(json.dumps(written))


def place_of(target: Target, runtime: Runtime) -> str:
    """A short name for where and with what is measured."""
    return _digest([target.model_dump(mode="json"), type(runtime).__name__])[:8]


def _files(folder: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in sorted(folder.glob("model.*"))}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
