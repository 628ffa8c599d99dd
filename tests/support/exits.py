"""A project in which a net really got early exits: trained, calibrated and measured by the real job, in this
process.

    python -m tests.support.exits DATA_FOLDER [VALIDATION_SAMPLES]
"""

import dataclasses
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from db import datasets, jobs, models_, runs
from db.artifacts import Artifacts
from db.models import Job
from db.session import migrate, reading, transaction
from db.settings import Settings
from workers import measuring, pipeline, turns
from workers.assignment import Assignment
from workers.base import Candidate, Context, ImagePreprocessing, ModelSpec, Target
from workers.calibration.calibrate import calibrate
from workers.calibration.path_times import time_stream
from workers.catalog import MEASURES
from workers.data.builtin import sample
from workers.exits import placing
from workers.graph.archive import trace, write_archive
from workers.graph.resnets import RESNETS
from workers.job import KINDS
from workers.measures.latency import Latency
from workers.runtimes.onnxruntime import OnnxRuntime
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings
from workers.work import thresholds
from workers.work.files import open_data

LOOKS = ImagePreprocessing(channels=1, height=28, width=28, mean=(0.0,), std=(1.0,))
EXITS = {"method": "early_exit", "exits": 2, "head_epochs": 2, "epochs": 2, "max_drop": 2.0, "guarantee": 0.9}
SIZES = {"calibration": 200, "test": 300, "train": 1500}


@dataclasses.dataclass(frozen=True)
class _Quick(Latency):
    seconds: float = 0.1


def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that all test processes share; copy it before writing."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    folder = tmp_path_factory.getbasetemp().parent / f"exits-{run}"
    with FileLock(folder.with_suffix(".lock")):
        build(folder)
    return folder


@contextmanager
def quickly() -> Iterator[None]:
    """Everything that is timed takes as few calls as it can, and waits for no other measurement."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as locks:
        patch.setattr(turns, "LOCK_FOLDER", locks)
        patch.setattr(placing, "SECONDS", 0.05)
        patch.setattr(pipeline, "calibrate", partial(calibrate, seconds=0.02))
        patch.setattr(thresholds, "time_stream", partial(time_stream, seconds=0.02))
        patch.setattr(measuring, "MEASURES", MappingProxyType({**MEASURES, "latency": _Quick}))
        yield


def build(data: Path, *, validation: int = 1000, steps: Sequence[dict[str, Any]] = (EXITS,)) -> str:
    """The id of the run. A folder that holds it already is left as it is."""
    settings = Settings(data=data)
    data.mkdir(parents=True, exist_ok=True)
    migrate(settings.database)
    with reading(settings.database) as session:
        known = runs.all_of(session)
    if known:
        return known[0].id
    with quickly():
        return _build(settings, data, validation, steps)


def _build(settings: Settings, data: Path, validation: int, steps: Sequence[dict[str, Any]]) -> str:
    _pictures(data / "digits.npz", validation)
    store = Artifacts(settings.artifacts)
    with transaction(settings.database) as session:
        dataset = datasets.add(
            session, name="digits", source="digits.npz", upload_sha256=store.add(data / "digits.npz")
        )
        imported = jobs.add(session, "import", dataset.id, queue="cpu", request={"noun": "dataset"})
    do(settings, imported.id)
    model_id = _model(settings, dataset.id, data)
    with transaction(settings.database) as session:
        experiment = runs.experiment_of(session, model_id, dataset.id)
        recipe = {"name": "Early exits", "steps": list(steps)}
        run = runs.add(session, experiment, name="Early exits", recipe=recipe)
        job = jobs.add(session, "run", run.id, queue="cpu", request={})
    do(settings, job.id)
    return run.id


def do(settings: Settings, job_id: str) -> None:
    """What a worker would do with a queued job; its error is raised here."""
    with transaction(settings.database) as session:
        attempt = jobs.claim(session, job_id, "here")
        assert attempt is not None
        job = session.get_one(Job, job_id)
    folder = settings.data / "jobs" / job_id
    folder.mkdir(parents=True)
    module = __import__(KINDS[job.kind], fromlist=["do"])
    with quickly():
        module.do(Assignment(job, attempt, settings, folder))
    with transaction(settings.database) as session:
        jobs.end(session, job_id, attempt, "done")


def _pictures(file: Path, validation: int) -> None:
    """Digits of the sample; more for validation than there are come as copies, shifted by some pixels."""
    samples = sample(file.parent)
    order = np.random.default_rng(0).permutation(len(samples.labels))
    images = np.stack([np.asarray(samples.pictures[int(index)]) for index in order])
    labels = samples.labels[order]
    ends = np.cumsum(list(SIZES.values()))
    split = np.repeat(np.array(list(SIZES)), list(SIZES.values()))
    shifts = itertools.product((0, 1, -1, 2, -2), repeat=2)
    rest = [np.roll(images[ends[-1] :], shift, axis=(1, 2)) for shift in itertools.islice(shifts, 4)]
    more = np.concatenate(rest)[:validation]
    np.savez(
        file,
        images=np.concatenate([images[: ends[-1]], more]),
        labels=np.concatenate([labels[: ends[-1]], np.tile(labels[ends[-1] :], 4)[:validation]]),
        split=np.concatenate([split, np.full(len(more), "validation")]),
    )


def _model(settings: Settings, dataset_id: str, data: Path) -> str:
    """A narrow ResNet after one epoch, as an import job would leave it."""
    with transaction(settings.database) as session:
        row = datasets.find(session, dataset_id)
        assert row is not None
        blank = Job(id="train", kind="run", subject_id="")
    (data / "train").mkdir()
    prepared = open_data(Assignment(blank, 1, settings, data / "train"), row).prepare(
        LOOKS, settings.data / "datasets"
    )
    spec = ModelSpec(
        name="digits-net", sha256="1" * 64, architecture="cifar_resnet8", classes=10, preprocessing=LOOKS
    )
    torch.manual_seed(0)
    net = RESNETS["cifar_resnet8"](num_classes=10, in_channels=1, width=16)
    context = Context(
        data=prepared,
        original=Candidate(spec),
        runtime=OnnxRuntime(),
        target=Target(host="here"),
        device=torch.device("cpu"),
        seed=0,
        scratch=data / "train",
        tell=lambda _: None,
    )
    train(
        net,
        context,
        settings=TrainingSettings(epochs=6, learning_rate=0.1, batch_size=32),
        loss=cross_entropy(),
    )
    graph = torch.fx.symbolic_trace(net.eval())
    write_archive(trace(graph, LOOKS), data / "train" / "model.pt2")
    sha256 = Artifacts(settings.artifacts).add(data / "train" / "model.pt2")
    with transaction(settings.database) as session:
        model = models_.add(session, name="digits-net", upload_sha256="1" * 64)
        models_.imported(
            session, model.id, spec=spec.model_dump(mode="json"), facts={}, file_sha256=sha256,
            file_name="model.pt2",
        )  # fmt: skip
    return model.id


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), validation=int(sys.argv[2]) if len(sys.argv) > 2 else 1000))
