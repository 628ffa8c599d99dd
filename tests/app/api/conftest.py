"""One web process for the tests of a module, on a data folder of its own."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.web import Web, serving


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("data"), upload_limit_mb="20") as running:
        yield running


@pytest.fixture
def client(web: Web) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.address) as made:
        yield made
