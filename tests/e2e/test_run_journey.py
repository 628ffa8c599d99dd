"""Links, forms and buttons of the pages in a real browser: what AppTest cannot drive."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pandas as pd
import pytest
from playwright.sync_api import Page, Route, expect

from app.components.run_charts import REDRAWN_S
from db import jobs, runs
from db.session import reading, transaction
from tests.support import experiments
from tests.support.browser import chromium
from tests.support.web import Web, serving


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    data: Path = tmp_path_factory.mktemp("data")
    experiments.fill(f"sqlite:///{data}/paredown.db")
    with serving(data) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(30_000)
        yield opened


def query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_an_address_keeps_selection_filters_and_goal(page: Page, web: Web) -> None:
    with reading(web.settings.database) as session:
        (experiment,) = runs.experiments(session)
        run = next(run for run in runs.all_of(session) if run.name == "Pruned by 30 %")
        found = runs.whole(session, run.id)
        assert found is not None
        variant = found.stages[-1].variants[0].id
    page.goto(f"{web.address}/?variant={variant}&drop=2.5&x=ms&stages=true")
    expect(page.get_by_text("Compare with")).to_be_visible()
    assert urlsplit(page.url).path == "/tradeoffs"
    asked = query(page)
    assert (asked["variant"], asked["drop"], asked["x"], asked["stages"]) == (variant, "2.5", "ms", "true")
    assert (asked["experiment"], asked["ratio"]) == (experiment.id, "0.6")
    assert "3f2a91bc" in asked["target"]
    slider = page.get_by_role("slider").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("2.6", exact=True)).to_be_visible()
    page.wait_for_url("**drop=2.6**")
    with reading(web.settings.database) as session:
        assert runs.experiments(session)[0].goal == {"max_drop_points": 2.6, "max_latency_ratio": 0.6}


def test_csv_holds_what_the_table_shows(page: Page, web: Web) -> None:
    page.goto(f"{web.address}/tradeoffs?x=ms&feasible=true&drop=1&ratio=0.6")
    with page.expect_download() as started:
        page.get_by_test_id("stDownloadButton").get_by_role("button").click()
    rows = pd.read_csv(started.value.path())
    assert rows["label"].tolist() == ["Baseline", "Pruned by 50 %"]
    assert rows["target"].nunique() == 1
    assert rows["latency_ms"].round(4).tolist() == [3.12, 1.6224]  # 3.12 * 0.52
    assert rows["accuracy"].tolist() == [0.9525, 0.946]


def test_new_run_lives_under_its_own_name_and_its_panel_stays_in_sight(page: Page, web: Web) -> None:
    page.set_viewport_size({"width": 1280, "height": 500})
    page.goto(f"{web.address}/new-run")
    panel = page.get_by_text("What to expect")
    expect(panel).to_be_visible()
    expect(page.get_by_text("More settings").first).to_be_visible()  # the form is long by then
    page.mouse.move(500, 300)
    page.mouse.wheel(0, 2000)
    page.wait_for_timeout(500)
    assert page.get_by_text("Presets").bounding_box()["y"] < 0  # type: ignore[index]
    assert panel.bounding_box()["y"] > 0  # type: ignore[index]
    page.goto(f"{web.address}/")
    page.get_by_role("link", name="New run").click()
    page.wait_for_url("**/new-run**")


def test_form_and_yaml_are_one_recipe_and_it_is_queued(page: Page, web: Web) -> None:
    recipe = {"name": "Mine", "steps": [{"method": "structured_pruning", "amount": 0.25}]}
    page.goto(f"{web.address}/new-run?recipe={quote(json.dumps(recipe))}")
    amount = page.get_by_role("spinbutton", name="Amount")
    expect(amount).to_have_value("0.25")
    amount.fill("0.4")  # left by the click on the other tab
    page.get_by_role("tab", name="YAML").click()
    text = page.get_by_role("textbox", name="Recipe")
    expect(text).to_have_value(
        re.compile(
            r"name: Mine\nsteps:\n- method: structured_pruning\n  amount: 0\.4\n.*  round_to: 8\n", re.DOTALL
        )
    )
    text.fill("name: Mine\nsteps:\n- method: structured_pruning\n  amount: 0.6\n- method: fine_tuning\n")
    text.press("Control+Enter")
    page.get_by_role("tab", name="Form").click()
    expect(amount).to_have_value("0.6")
    expect(page.get_by_role("spinbutton", name="Epochs")).to_have_value("5")
    page.get_by_role("button", name="Queue run", exact=True).click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    with reading(web.settings.database) as session:
        steps = runs.recent(session, 1)[0].recipe["steps"]
    assert [step["method"] for step in steps] == ["structured_pruning", "fine_tuning"]
    assert steps[0]["amount"] == 0.6


def test_cancel_retry_duplicate(page: Page, web: Web) -> None:
    page.goto(f"{web.address}/new-run")
    page.get_by_role("button", name="Queue run", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    run = query(page)["run"]
    with reading(web.settings.database) as session:
        assert jobs.latest(session, [run])[run].state == "queued"
    page.get_by_role("button", name="Duplicate and edit").click()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("Balanced (copy)")


def test_news_that_come_with_a_press_do_not_undo_it(page: Page, web: Web) -> None:
    """For a rerun the server stops what it runs: of a press that it had not come to, nothing stayed."""
    page.goto(f"{web.address}/new-run")
    page.get_by_role("button", name="Queue run", exact=True).click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.wait_for_timeout(2000)  # what the queueing itself changed is drawn
    held: list[Route] = []
    page.route("**/api/state/runs/*", lambda route: route.continue_() if held else held.append(route))
    while not held:
        page.wait_for_timeout(50)
    news = held[0].fetch().json() | {"version": "news"}
    page.get_by_role("button", name="Duplicate and edit").click()
    held[0].fulfill(json=news)
    expect(page.get_by_role("textbox", name="Name")).to_have_value("Balanced (copy)")


def test_a_click_opens_a_run_and_the_log_of_a_running_one_follows(page: Page, web: Web) -> None:
    with reading(web.settings.database) as session:
        run = next(run for run in runs.recent(session, 50) if run.name == "Pruned by 40 %")
        job = jobs.latest(session, [run.id])[run.id]
    log = web.settings.job_log(job.id)
    log.parent.mkdir(exist_ok=True)
    log.write_text("first line\n")
    page.goto(f"{web.address}/runs?run={run.id}")
    page.get_by_test_id("stExpander").get_by_text("Log").click()
    expect(page.get_by_text("first line")).to_be_visible()
    log.write_text("first line\nsecond line\n")
    expect(page.get_by_text("second line")).to_be_visible(timeout=10_000)
    page.get_by_role("link", name="All runs").click()
    table = page.get_by_test_id("stDataFrame")
    expect(table).to_be_visible()
    page.wait_for_timeout(1000)
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 120, box["y"] + 52)  # the first row's name
    page.wait_for_url("**run=**")


def test_a_last_point_that_comes_with_the_end_does_not_hide_it(page: Page, web: Web) -> None:
    """The curve and the page want to be drawn by the same poll; the page must win."""
    page.goto(f"{web.address}/new-run")
    page.get_by_role("button", name="Queue run", exact=True).click()
    page.wait_for_url("**run=**")
    run_id = query(page)["run"]
    with transaction(web.settings.database) as session:
        job = jobs.latest(session, [run_id])[run_id]
        attempt = jobs.claim(session, job.id, "nobody")
        assert attempt is not None
    expect(page.get_by_text("running")).to_be_visible()
    page.wait_for_timeout(1000 * REDRAWN_S + 500)
    with transaction(web.settings.database) as session:
        jobs.point(session, job.id, 1, 1, {"loss": 1.0, "accuracy": 0.5})
        jobs.end(session, job.id, attempt, "done")
    expect(page.get_by_role("button", name="Show in trade-offs")).to_be_visible(timeout=5000)
    expect(page.locator(".vega-embed")).to_have_count(2)
