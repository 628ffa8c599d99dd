"""A click on a cell of the heat map opens New run with that layer's amount, in a real browser."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from playwright.sync_api import expect

from db import analyses, runs
from db.session import transaction
from tests.support import experiments
from tests.support.browser import visiting
from tests.support.web import serving
from workers.sensitivity.table import INT8, Cell, Row, Table, pruned_by

TARGET = {"host": "3f2a91bc", "device": "cpu", "runtime": "onnxruntime", "version": "1.32.0"}


def fill(data: Path) -> str:
    """Two layers whose eight cells all say something else."""
    url = f"sqlite:///{data}/paredown.db"
    experiment = experiments.fill(url)
    rows = tuple(
        Row(
            layer=f"conv{number}",
            root=f"conv{number}",
            width=16,
            cells=(
                *(
                    Cell(change=pruned_by(share), share=share, accuracy=0.95 - number * share / 10)
                    for share in (0.25, 0.5, 0.75)
                ),
                Cell(change=INT8, accuracy=0.95 - number / 1000),
            ),
        )
        for number in (1, 2)
    )
    document = Table(accuracy=0.95, samples=512, rows=rows, whole=True).model_dump(mode="json")
    with transaction(url) as session:
        stage = runs.baseline_stages(session, [experiment])[experiment]
        analyses.save(session, "sensitivity", "key", stage_id=stage.id, target=TARGET, document=document)
    return experiment


def test_clicks_gather_in_a_recipe(tmp_path: Path) -> None:
    experiment = fill(tmp_path)
    with serving(tmp_path) as web, visiting(f"{web.address}/sensitivity?experiment={experiment}") as page:

        def click(number: str) -> None:
            cell = page.locator(".vega-embed svg text").filter(has_text=number)
            cell.wait_for(timeout=30_000)
            page.wait_for_timeout(1500)  # until the chart has its place and width
            cell.click()

        click("−10.0")  # of conv2, half of it gone
        page.wait_for_url("**/new-run?**", timeout=20_000)
        expect(page.get_by_role("heading", name="New run")).to_be_visible()
        steps = json.loads(parse_qs(urlparse(page.url).query)["recipe"][0])["steps"]
        assert [step["layer_amounts"] for step in steps] == [{"conv2": 0.5}]
        page.get_by_role("link", name="Sensitivity of its layers").click()
        page.wait_for_url("**/sensitivity?**")
        click("−0.1")  # of conv1, in int8
        page.wait_for_url("**/new-run?**", timeout=20_000)
        expect(page.get_by_role("heading", name="New run")).to_be_visible()
        steps = json.loads(parse_qs(urlparse(page.url).query)["recipe"][0])["steps"]
        assert steps[0]["layer_amounts"] == {"conv2": 0.5}
        assert steps[1]["keep_in_float"] == "conv1"
