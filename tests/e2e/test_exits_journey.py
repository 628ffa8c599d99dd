"""Thresholds moved, solved, saved and exported in a real browser; the file does what the page said."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from playwright.sync_api import Page, expect

from db import jobs, variants
from db.session import reading
from tests.support import exits
from tests.support.browser import downloaded, visiting
from tests.support.web import Web, serving

STILL_S = 1.5


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    data = tmp_path_factory.mktemp("exits") / "data"
    shutil.copytree(exits.project(tmp_path_factory), data)
    with serving(data) as running:
        yield running


def numbers(page: Page) -> list[str]:
    return [text.replace("\u00a0", " ") for text in page.get_by_test_id("stMetricValue").all_inner_texts()]


def ring(page: Page) -> str | None:
    """Where the frontier says "You are here"."""
    return page.locator(".vega-embed svg path[stroke='#D55E00']").get_attribute("transform")


def changed(page: Page, before: list[str]) -> list[str]:
    """Once they are others, and stay so: every key press draws them anew."""
    found, since = numbers(page), time.monotonic()
    while time.monotonic() - since < STILL_S or found == before:
        page.wait_for_timeout(100)
        now = numbers(page)
        if now != found:
            found, since = now, time.monotonic()
        assert time.monotonic() - since < 30, "nothing changed"
    return found


def open_from_tradeoffs(page: Page, web: Web) -> None:
    with reading(web.settings.database) as session:
        variant = variants.with_exits(session)[0][0].id
    page.goto(f"{web.address}/tradeoffs?variant={variant}")
    page.get_by_role("link", name="Explore exits").click()
    expect(page.get_by_role("heading", name="Exits")).to_be_visible()
    expect(page.get_by_test_id("stMetricValue")).to_have_count(3)
    page.locator(".vega-embed svg").nth(2).wait_for()


def move_and_solve(page: Page) -> str:
    """Returns the accuracy that the page shows in the end."""
    page.wait_for_timeout(1500)  # the charts get their width
    before, place = numbers(page), ring(page)
    page.get_by_role("slider").first.focus()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    moved = changed(page, before)
    expect(page.locator(".vega-embed svg path[stroke='#D55E00']")).not_to_have_attribute(
        "transform", str(place)
    )
    assert "thresholds=" in page.url
    page.get_by_role("spinbutton", name="Lose at most (points)").fill("0.60")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Solve").first.click()
    return changed(page, moved)[0]


def save(page: Page, web: Web) -> None:
    page.get_by_role("button", name="Save as point").click()
    expect(page.get_by_role("button", name="Save as point")).to_be_disabled(timeout=30_000)
    with reading(web.settings.database) as session:
        (job,) = jobs.active(session, ("thresholds",))
    exits.do(web.settings, job.id)
    expect(page.get_by_text("These thresholds are a point.")).to_be_visible(timeout=15_000)


def test_from_a_slider_to_a_file_that_does_what_the_page_said(web: Web, tmp_path: Path) -> None:
    with visiting(web.address) as page:
        page.set_default_timeout(30_000)
        open_from_tradeoffs(page, web)
        accuracy = move_and_solve(page)
        save(page, web)
        page.get_by_role("link", name="Show in trade-offs").click()
        expect(page.get_by_text("exits at").first).to_be_visible()
        page.get_by_role("button", name="Export", exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("stops early by itself")
        file = downloaded(dialog.get_by_role("link", name="Download"), tmp_path)
        described = downloaded(dialog.get_by_role("link", name="exits.json"), tmp_path)
    assert re.fullmatch(r"Early-exits-stage1-exits-[\d.-]+\.onnx", file.name)
    report = json.loads(described.read_text())
    assert accuracy == f"{100 * report['accuracy']:.2f} %" == on_validation(file, web.settings.data)
    with reading(web.settings.database) as session:
        found = variants.with_exits(session)
    saved = next(v for v, *_ in found if v.file_sha256)
    assert list((saved.thresholds or {}).values()) == report["thresholds"]


def on_validation(file: Path, data: Path) -> str:
    """With nothing but ONNX Runtime and numpy."""
    found = np.load(data / "digits.npz")
    rows = found["split"] == "validation"
    run = ort.InferenceSession(file)
    inputs = found["images"][rows][:, None].astype(np.float32) / 255
    answers = [run.run(["logits"], {"input": picture[None]})[0].argmax() for picture in inputs]
    return f"{100 * np.mean(answers == found['labels'][rows]):.2f} %"


def test_exits_json_comes_over_http_and_only_where_there_are_exits(web: Web) -> None:
    with reading(web.settings.database) as session:
        variant, stage, run = variants.with_exits(session)[0]
        rows = variants.comparison(session, run.experiment_id)
    answer = httpx.get(f"{web.address}/api/downloads/variants/{variant.id}/exits.json")
    assert answer.headers["x-sha256"] == stage.exits_sha256
    assert 'filename="exits.json"' in answer.headers["content-disposition"]
    assert len(answer.json()["thresholds"]) == 2
    without = next(row["variant"] for row in rows if row["index"] == 0)
    for name in (without, "none"):
        assert httpx.get(f"{web.address}/api/downloads/variants/{name}/exits.json").status_code == 404
