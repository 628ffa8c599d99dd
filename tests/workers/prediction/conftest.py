from pathlib import Path

import pytest

from workers import turns
from workers.measures import latency
from workers.profiling import recording


@pytest.fixture(autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests neither wait for a real measurement on this host nor hold one up."""
    folder = tmp_path_factory.mktemp("turns")
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(folder))
    return folder


@pytest.fixture(autouse=True)
def one_sitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What repeats a measurement makes it exact; these tests look at where times go."""
    monkeypatch.setattr(recording, "SITTINGS", 1)
    monkeypatch.setattr(latency, "SITTINGS", 1)
