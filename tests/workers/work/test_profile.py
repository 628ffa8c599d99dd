"""A job that profiles: what it keeps, and when it has nothing to do."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from db import analyses, jobs, runs
from db.artifacts import Artifacts
from db.models import Job, Run, Stage
from db.session import reading, transaction
from db.settings import Settings
from tests.support.experiments import fill
from tests.support.profiles import AFTER, BEFORE, PEAKS
from workers.assignment import Assignment
from workers.profiling.peaks import Peaks
from workers.profiling.profile import Profile
from workers.work import profile as work


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The sample experiment; the baseline and the last stage of a run have files."""
    found = Settings(data=tmp_path / "data")
    found.data.mkdir()
    fill(found.database)
    with transaction(found.database) as session:
        for stage in _stages(runs.all_of(session)):
            file = tmp_path / f"{stage.index}.onnx"
            file.write_bytes(bytes([stage.index]))
            stage.file_sha256 = Artifacts(found.artifacts).add(file)
    return found


def _stages(found: Sequence[Run]) -> list[Stage]:
    return next(run for run in found if run.name == "Pruned by 50 %").stages


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """What each file that was profiled held, one list per time."""
    seen: list[list[bytes]] = []

    def pretended(files: Sequence[Path], *_: object) -> list[Profile]:
        seen.append([file.read_bytes() for file in files])
        return [AFTER, BEFORE][: len(files)]

    monkeypatch.setattr(work, "profile", pretended)
    monkeypatch.setattr(work, "measure_peaks", lambda: PEAKS)
    monkeypatch.setattr(work, "_bench", lambda *_: None)
    return seen


def do(settings: Settings, beside: int = 0, **request: object) -> list[str]:
    """Profile the last stage beside another one, the baseline; returns the two stages."""
    with transaction(settings.database) as session:
        found = _stages(runs.all_of(session))
        first, last = found[beside], found[-1]
        ids = [last.own.id, first.own.id]
        job = jobs.add(session, "profile", last.id, queue="cpu", request={"variants": ids, **request})
        attempt = jobs.claim(session, job.id, "worker-1")
        assert attempt is not None
        stages = [last.id, first.id]
    with reading(settings.database) as session:
        claimed = session.get_one(Job, job.id)
    folder = settings.data / job.id
    folder.mkdir()
    work.do(Assignment(claimed, attempt, settings, folder))
    return stages


def test_both_files_are_kept_with_the_session_they_share(
    settings: Settings, profiled: list[list[bytes]]
) -> None:
    stages = do(settings)
    assert profiled == [[b"\x02", b"\x00"]]
    with reading(settings.database) as session:
        rows = [analyses.of_stage(session, "profile", stage)[0] for stage in stages]
    assert rows[0].document["session"] == rows[1].document["session"]
    assert [row.document["latency_ms"] for row in rows] == [AFTER.latency_ms, BEFORE.latency_ms]
    assert (rows[0].target["runtime"], rows[0].target["threads"]) == ("onnxruntime", 1)


def test_it_is_done_again_only_when_asked_for(settings: Settings, profiled: list[list[bytes]]) -> None:
    do(settings)
    do(settings)
    assert len(profiled) == 1
    stages = do(settings, again=True)
    assert len(profiled) == 2
    with reading(settings.database) as session:
        assert len(analyses.of_stage(session, "profile", stages[0])) == 1  # replaced


def test_pairs_do_not_overwrite_each_other(settings: Settings, profiled: list[list[bytes]]) -> None:
    last, first = do(settings)
    _, middle = do(settings, beside=1)
    assert profiled == [[b"\x02", b"\x00"], [b"\x02", b"\x01"]]
    with reading(settings.database) as session:
        sessions = [
            {row.document["session"] for row in analyses.of_stage(session, "profile", stage)}
            for stage in (last, first, middle)
        ]
    assert (len(sessions[0]), sessions[0]) == (2, sessions[1] | sessions[2])
    do(settings)
    assert len(profiled) == 2  # still known


def test_equal_files_of_two_stages_are_recorded_once_and_make_a_pair(
    settings: Settings, profiled: list[list[bytes]]
) -> None:
    with transaction(settings.database) as session:
        first, *_, last = _stages(runs.all_of(session))
        last.file_sha256 = first.file_sha256
    stages = do(settings)
    assert profiled == [[b"\x00"]]
    with reading(settings.database) as session:
        (one,), (other,) = (analyses.of_stage(session, "profile", stage) for stage in stages)
    assert one.document == other.document
    do(settings)
    assert len(profiled) == 1


def test_peaks_are_written_beside_those_of_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs at it at once: neither takes the other's half-written file."""
    target, replace = work._target(), Path.replace
    monkeypatch.setattr(work, "measure_peaks", lambda: PEAKS)

    def beside(self: Path, place: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        work._peaks(tmp_path, target)
        return replace(self, place)

    monkeypatch.setattr(Path, "replace", beside)
    work._peaks(tmp_path, target)
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_peaks_are_the_best_that_was_ever_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Peaks(gflops={"float32": 50.0, "int8": 500.0}, gbytes=((1 << 20, 150.0), (1 << 27, 10.0)))
    target = work._target()
    for measured in (PEAKS, slow):
        monkeypatch.setattr(work, "measure_peaks", lambda measured=measured: measured)
        found = work._peaks(tmp_path, target)
    assert found.gflops == {"float32": 100.0, "int8": 500.0}
    assert found.gbytes == ((1 << 20, 150.0), (1 << 27, 20.0))
