"""A file dropped in a real browser arrives whole, and the page follows its check without being reloaded."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from db import jobs, models_
from db.models import Job
from db.session import reading, transaction
from tests.support.browser import visiting
from tests.support.web import Web, serving

DROP = """([name, size]) => {
    const host = [...document.querySelectorAll('*')].find((e) => e.shadowRoot?.querySelector('section'));
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(size).fill(7)], name));
    host.shadowRoot.querySelector('section').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer }));
}"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("data"), upload_limit_mb="64") as running:
        yield running


@pytest.fixture
def page(web: Web) -> Iterator[Page]:
    with visiting(f"{web.address}/models") as opened:
        opened.get_by_text("Choose a file").wait_for(timeout=60_000)
        yield opened


def card_name(page: Page, name: str) -> Locator:
    """Of a card, not of the drop zone."""
    return page.get_by_test_id("stText").get_by_text(name, exact=True)


def until(page: Page, true: Callable[[], bool]) -> None:
    """Let the page go on for ten seconds at most."""
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(100)
    assert true()


def the_job(web: Web, name: str) -> tuple[str, Job]:
    """(SHA-256 of the upload, its import job)."""
    with reading(web.settings.database) as session:
        model = next(model for model in models_.all_of(session) if model.name == name)
        return model.upload_sha256, jobs.latest(session, [model.id])[model.id]


def test_a_file_is_sent_checked_and_refused_before_the_eyes(page: Page, web: Web, tmp_path: Path) -> None:
    content = bytes(range(251)) * 80_000  # three chunks
    file = tmp_path / "net <b>**x**.pt"
    file.write_bytes(content)
    page.set_input_files("input[type=file]", file)
    expect(card_name(page, file.name)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Waiting for a worker").first).to_be_visible()
    sha256, job = the_job(web, file.name)
    assert sha256 == hashlib.sha256(content).hexdigest()
    with transaction(web.settings.database) as session:
        attempt = jobs.claim(session, job.id, "worker")
    assert attempt is not None
    expect(page.get_by_text("Starting").first).to_be_visible(timeout=20_000)
    with transaction(web.settings.database) as session:
        jobs.progress(session, job.id, attempt, stage=0, share=0.5, text="Exporting")
    expect(page.get_by_text("Exporting")).to_be_visible(timeout=20_000)
    error = {
        "where": file.name,
        "what": "is a pickle.",
        "fix": "Save it: torch.save(m.state_dict(), 'w.pt').",
    }
    with transaction(web.settings.database) as session:
        jobs.end(session, job.id, attempt, "failed", error)
    expect(page.get_by_text(f"{file.name}: is a pickle.")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("torch.save(m.state_dict(), 'w.pt')")).to_be_visible()


def test_a_lost_connection_is_gone_on_from(page: Page, web: Web) -> None:
    sent: list[str] = []

    def sometimes(route: Route) -> None:
        sent.append(route.request.url)
        if route.request.method == "PUT" and len(sent) in (2, 3):
            route.abort()
        else:
            route.continue_()

    page.route("**/api/uploads/*offset=*", sometimes)
    page.evaluate(DROP, ["dropped.pt2", 20 << 20])
    expect(card_name(page, "dropped.pt2")).to_be_visible(timeout=30_000)
    assert the_job(web, "dropped.pt2")[0] == hashlib.sha256(b"\7" * (20 << 20)).hexdigest()
    assert len(sent) == 5  # three chunks, two of them lost once


def test_an_upload_goes_on_after_a_reload(page: Page, web: Web, tmp_path: Path) -> None:
    content = bytes(range(251)) * 80_000  # three chunks
    file = tmp_path / "reloaded.pt2"
    file.write_bytes(content)
    sent: list[str] = []

    def hangs_from_the_second_on(route: Route) -> None:
        sent.append(route.request.url.partition("offset=")[2])
        if sent[-1] == "0":
            route.continue_()

    page.route("**/api/uploads/*offset=*", hangs_from_the_second_on)
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_text("41 % of")).to_be_visible(timeout=30_000)
    while len(sent) < 2:
        page.wait_for_timeout(50)
    page.unroute("**/api/uploads/*offset=*")
    page.reload()
    page.on("request", lambda r: sent.append(r.url.partition("offset=")[2]) if r.method == "PUT" else None)
    page.get_by_text("Choose a file").wait_for(timeout=60_000)
    page.set_input_files("input[type=file]", file)
    expect(card_name(page, file.name)).to_be_visible(timeout=30_000)
    assert sent.count("0") == 1, "the first chunk was sent again"
    until(page, lambda: sent[-1] == "16777216")
    assert the_job(web, file.name)[0] == hashlib.sha256(content).hexdigest()
    assert list(web.settings.uploads.glob("*")) == []


def test_what_must_be_said_first_keeps_a_file_back(page: Page, web: Web) -> None:
    architecture = page.get_by_role("combobox", name="Architecture").first
    architecture.fill("cifar_resnet8")
    architecture.press("Enter")
    expect(page.get_by_text("takes pictures of any size").first).to_be_visible(timeout=20_000)
    page.evaluate(DROP, ["early.pt", 100])
    expect(page.get_by_role("status")).to_contain_text("takes pictures of any size")
    assert list(web.settings.uploads.glob("*")) == []
    page.get_by_role("spinbutton", name="Input (px)").first.fill("28")
    page.get_by_role("spinbutton", name="Input (px)").first.press("Enter")
    expect(page.get_by_text("takes pictures of any size")).to_have_count(0, timeout=20_000)
    page.evaluate(DROP, ["early.pt", 100])
    expect(card_name(page, "early.pt")).to_be_visible(timeout=30_000)
    request = the_job(web, "early.pt")[1].request
    assert request == {"noun": "model", "architecture": "cifar_resnet8", "size": 28}


def test_too_large_a_file_is_told_at_once(page: Page, web: Web) -> None:
    page.evaluate(DROP, ["big.pt2", 65 << 20])
    expect(page.get_by_text("larger than 64 MiB")).to_be_visible()
    assert list(web.settings.uploads.glob("*")) == []


def test_cancelling_while_it_is_announced_leaves_nothing(page: Page, web: Web) -> None:
    def slowly(route: Route) -> None:
        answer = route.fetch()
        page.get_by_text("Cancel").click()
        route.fulfill(response=answer)

    page.route("**/api/uploads", slowly)
    page.evaluate(DROP, ["announced.pt2", 1 << 20])
    expect(page.get_by_text("Cancelled; nothing was kept.")).to_be_visible()
    until(page, lambda: not list(web.settings.uploads.glob("*")))


def test_cancelling_leaves_nothing(page: Page, web: Web) -> None:
    page.route("**/api/uploads/*offset=*", lambda _: None)  # hangs
    page.evaluate(DROP, ["slow.pt2", 1 << 20])
    page.get_by_text("Cancel").click()
    expect(page.get_by_text("Cancelled; nothing was kept.")).to_be_visible()
    until(page, lambda: not list(web.settings.uploads.glob("*")))
