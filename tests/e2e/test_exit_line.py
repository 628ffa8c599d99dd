"""Exits are put on the line of blocks, moved and taken away, by mouse and by keys, in a real browser."""

import json
from pathlib import Path
from urllib.parse import parse_qs, quote, urlparse

import pytest
from playwright.sync_api import Locator, Page, expect

from db import runs
from db.session import reading, transaction
from db.settings import Settings
from tests.support import blocks, experiments
from tests.support.browser import visiting
from tests.support.web import serving

RECIPE = {"name": "By hand", "steps": [{"method": "early_exit", "exits": ["relu_4", "relu_12"]}]}


def spot(page: Page, number: int) -> Locator:
    """The end of that block."""
    return page.locator(f'.spot[data-name="relu_{number}"]')


def expect_exits(page: Page, *numbers: int) -> None:
    """On the line, in words below it, and in the address."""
    names = [f"relu_{number}" for number in numbers]
    expect(page.locator('.spot[aria-pressed="true"]')).to_have_count(len(names))
    expect(page.locator("ol.exits code")).to_have_text(names)
    expect_written(page, names)


def expect_written(page: Page, exits: object) -> None:
    for _ in range(150):
        recipe = json.loads(parse_qs(urlparse(page.url).query)["recipe"][0])
        if recipe["steps"][0]["exits"] == exits:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"The address holds {recipe['steps'][0]['exits']}, not {exits}.")


def drag(page: Page, start: Locator, end: Locator) -> None:
    middles = []
    for place in (start, end):
        box = place.bounding_box()
        assert box is not None
        middles.append((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
    page.mouse.move(*middles[0])
    page.mouse.down()
    page.mouse.move(*middles[1], steps=4)
    page.mouse.up()


def by_mouse(page: Page) -> None:
    refused = page.locator(".refused")
    spot(page, 8).click()
    expect_exits(page, 4, 8, 12)
    spot(page, 9).click()
    expect(refused).to_contain_text(
        "Too close to the exit after relu_8: their answers would come 6\u00a0% of"
    )
    spot(page, 15).click()
    expect(refused).to_contain_text("Too late: an exit here would answer after 96\u00a0%")
    drag(page, spot(page, 8), spot(page, 11))
    expect(refused).to_contain_text("Too close to the exit after relu_12")
    drag(page, spot(page, 8), spot(page, 6))
    expect_exits(page, 4, 6, 12)
    spot(page, 2).click()
    expect_exits(page, 2, 4, 6, 12)
    spot(page, 9).click()
    expect(refused).to_have_text("4 exits are the most.")
    spot(page, 12).click()
    page.get_by_role("button", name="Remove exit 1").click()
    expect_exits(page, 4, 6)


def by_keys(page: Page) -> None:
    spot(page, 6).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # the focus went along
    expect_exits(page, 4, 8)
    page.keyboard.press("Delete")
    expect_exits(page, 4)
    page.keyboard.press("ArrowRight")  # where no exit is, they move the focus alone
    page.keyboard.press("Enter")
    expect_exits(page, 4, 9)
    spot(page, 4).press("Delete")
    spot(page, 9).press("Delete")
    expect(page.locator(".refused")).to_contain_text("One exit has to stay")
    expect_exits(page, 9)


def test_exits_are_placed_by_hand_and_queued(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    experiment = experiments.fill(settings.database)
    with transaction(settings.database) as session:
        blocks.keep(session, experiment)
    query = quote(json.dumps(RECIPE))
    with serving(tmp_path) as web, visiting(f"{web.address}/new-run?recipe={query}") as page:
        spot(page, 1).wait_for(timeout=60_000)
        expect(page.locator(".block")).to_have_text(["6\u00a0%"] * 16)
        by_mouse(page)
        by_keys(page)
        page.get_by_role("button", name="2 placed by time").click()
        expect(page.locator("ol.exits code")).to_have_text(["relu_4", "relu_8"])
        expect_written(page, 2)
        spot(page, 8).click()  # from there on by hand
        expect_exits(page, 4)
        page.get_by_role("button", name="Queue run").click()
        page.wait_for_url("**/runs?**", timeout=30_000)
        with reading(settings.database) as session:
            (step,) = runs.recent(session, 1)[0].recipe["steps"]
        assert step["exits"] == ["relu_4"]
