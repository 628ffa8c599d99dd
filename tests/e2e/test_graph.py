"""The graph of a file in a real browser: its nodes are there, and nothing is asked of another site."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper
from playwright.sync_api import expect

from db import runs
from db.artifacts import Artifacts
from db.session import transaction
from tests.support import experiments
from tests.support.browser import chromium
from tests.support.web import serving


def test_nodes_are_shown_and_no_request_leaves_the_origin(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("input", "logits")]
    node = helper.make_node("HardSwish", ["input"], ["logits"], name="the_only_node")
    graph = helper.make_graph([node], "net", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")
    with serving(tmp_path / "data") as web, chromium() as browser:
        experiments.fill(web.settings.database)
        with transaction(web.settings.database) as session:
            stage = next(stage for run in runs.all_of(session) for stage in run.stages)
            stage.file_sha256 = Artifacts(web.settings.artifacts).add(tmp_path / "model.onnx")
            variant = stage.own.id
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{web.address}/api/graph/variants/{variant}/")
        shown = page.get_by_text("HardSwish")
        expect(shown).to_be_visible(timeout=30_000)
        shown.click()
        expect(page.locator("#sidebar-content").get_by_text("the_only_node")).to_be_visible()
        page.wait_for_timeout(1000)  # what it sends, it sends after the graph is drawn
    assert [url for url in asked if not url.startswith((f"{web.address}/", "blob:", "data:"))] == []
    assert any(url.split("?")[0].endswith("/model.onnx") for url in asked)
    assert errors == []
