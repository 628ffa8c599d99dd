from pathlib import Path

import pytest

from tests.support.arrays import candidate, context, small_net
from workers import turns
from workers.base import Context
from workers.quantization.network import Network, float_network


@pytest.fixture(autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither wait for a real measurement on this host nor hold one up."""
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path_factory.mktemp("turns")))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network]:
    """The small net as a float file, and what it is made of."""
    return float_network(candidate(small_net()), ("a", "b", "c"), tmp_path_factory.mktemp("float"))


@pytest.fixture
def run(tmp_path: Path) -> Context:
    return context(tmp_path)
