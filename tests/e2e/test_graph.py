"""The graph of a file in a real browser: its nodes are there, and nothing is asked of another site."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from playwright.sync_api import Page, expect

from db import models_, runs
from db.artifacts import Artifacts
from db.session import transaction
from tests.support import experiments
from tests.support.browser import chromium
from tests.support.web import Web, serving
from workers.graph.archive import trace_shape, write_archive


@contextmanager
def opened(web: Web, address: str, file: str) -> Iterator[Page]:
    """The page, while what it asks for is listened to; that is judged at the end."""
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{web.address}{address}")
        yield page
        page.wait_for_timeout(1000)  # what it sends, it sends after the graph is drawn
    assert [url for url in asked if not url.startswith((f"{web.address}/", "blob:", "data:"))] == []
    assert any(url.split("?")[0].endswith(f"/{file}") for url in asked)
    assert errors == []


def test_nodes_are_shown_and_no_request_leaves_the_origin(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("input", "logits")]
    node = helper.make_node("HardSwish", ["input"], ["logits"], name="the_only_node")
    graph = helper.make_graph([node], "net", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")
    with serving(tmp_path / "data") as web:
        experiments.fill(web.settings.database)
        with transaction(web.settings.database) as session:
            stage = next(stage for run in runs.all_of(session) for stage in run.stages)
            stage.file_sha256 = Artifacts(web.settings.artifacts).add(tmp_path / "model.onnx")
            variant = stage.own.id
        with opened(web, f"/api/graph/variants/{variant}/", "model.onnx") as page:
            shown = page.get_by_text("HardSwish")
            expect(shown).to_be_visible(timeout=30_000)
            shown.click()
            expect(page.locator("#sidebar-content").get_by_text("the_only_node")).to_be_visible()


def test_a_model_as_it_is_kept_is_drawn_too(tmp_path: Path) -> None:
    """A canonical archive tells neither modules nor lines, and its tensors hold no pickle."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Hardswish())
    write_archive(trace_shape(net, (3, 8, 8)), tmp_path / "model.pt2")
    with serving(tmp_path / "data") as web:
        experiments.fill(web.settings.database)
        with transaction(web.settings.database) as session:
            (model,) = models_.all_of(session)
            model.file_sha256 = Artifacts(web.settings.artifacts).add(tmp_path / "model.pt2")
            name = model.id
        with opened(web, f"/api/graph/models/{name}/", "model.pt2") as page:
            for kind in ("conv2d", "hardswish"):
                expect(page.get_by_text(kind).first).to_be_visible(timeout=30_000)
