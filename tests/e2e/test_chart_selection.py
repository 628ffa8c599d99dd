"""Clicks into the chart, in a real browser: the detail, the table and the URL follow."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support import experiments
from tests.support.browser import visiting
from tests.support.web import serving


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data: Path = tmp_path_factory.mktemp("data")
    experiments.fill(f"sqlite:///{data}/paredown.db")
    with serving(data) as web:
        yield web.address


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with visiting(address) as opened:
        opened.locator(".vega-embed canvas").wait_for(timeout=30_000)
        opened.wait_for_timeout(1000)  # the chart is drawn once more when its width is known
        yield opened


#: Centres of what the canvas shows in the first colour of the palette: the last stages of three runs.
FRONT = """() => {
    const canvas = document.querySelector('.vega-embed canvas');
    const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
    const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const blobs = [];
    for (let i = 0; i < data.length; i += 4) {
        if (data[i] !== 0 || data[i + 1] !== 0x72 || data[i + 2] !== 0xb2 || data[i + 3] !== 255) continue;
        const x = ((i / 4) % width) / scale, y = Math.floor(i / 4 / width) / scale;
        const near = blobs.find((b) => Math.hypot(b.x - x, b.y - y) < 14);
        if (near) { near.n += 1; near.x += (x - near.x) / near.n; near.y += (y - near.y) / near.n; }
        else blobs.push({ x, y, n: 1 });
    }
    const points = blobs.filter((b) => b.n > 20);
    points.sort((a, b) => Math.round((a.x - b.x) / 20) || a.y - b.y);
    return points.map((b) => [box.x + b.x, box.y + b.y]);
}"""


def click(page: Page, place: int, *, shift: bool = False) -> None:
    """place: among the three front points, from the fastest on."""
    page.wait_for_timeout(800)  # until the chart has its place and width
    points = page.evaluate(FRONT)
    assert len(points) == 3
    if shift:
        page.keyboard.down("Shift")
    page.mouse.click(*points[place])
    if shift:
        page.keyboard.up("Shift")


def test_click_then_shift_click_then_beside(page: Page) -> None:
    click(page, 1)
    expect(page.get_by_text("Compare with")).to_be_visible()
    expect(page.locator("[data-testid=stTable]")).to_contain_text("Accuracy (test)")
    expect(page.locator("[data-testid=stTable] th").filter(has_text="Pruned by 50 %")).to_be_visible()
    assert "variant=" in page.url
    click(page, 2, shift=True)
    expect(page.locator("[data-testid=stTable] th").filter(has_text="Pruned by 30 %")).to_be_visible()
    assert "second=" in page.url
    link = page.url
    page.goto("about:blank")
    page.goto(link)  # as a colleague opens it
    expect(page.locator("[data-testid=stTable] th").filter(has_text="Pruned by 30 %")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("Compare with")).to_have_count(0)
    assert "variant=" not in page.url


def test_the_same_point_can_be_chosen_again_after_clearing(page: Page) -> None:
    click(page, 0)
    expect(page.get_by_text("Compare with")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("Compare with")).to_have_count(0)
    click(page, 0)
    expect(page.get_by_text("Compare with")).to_be_visible()
