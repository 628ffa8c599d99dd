from pathlib import Path

import pytest

from workers import turns


@pytest.fixture(autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests neither wait for a real measurement on this host nor hold one up."""
    folder = tmp_path_factory.mktemp("turns")
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(folder))
    return folder
