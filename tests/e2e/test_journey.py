"""From an empty project to a file that runs elsewhere, as a person does it; and the same in a terminal."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from playwright.sync_api import Page, expect

from db import runs, variants
from db.models import Run
from db.session import reading
from tests.support.browser import downloaded, visiting
from tests.support.web import EVERYTHING, Web, serving
from workers.graph.resnets import RESNETS

SIDE, CLASSES, SAMPLES = 10, ("cat", "dog", "süß"), 300
PATIENCE_MS = 90_000
CHECKED = re.compile(r"Checked$")  # after an icon
#: Centres of what the chart's canvas shows in a colour of its own, from left to right.
MARKS = """() => {
    const canvas = document.querySelector('.vega-embed canvas');
    const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
    const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const marks = [];
    for (let i = 0; i < data.length; i += 4) {
        const [r, g, b, a] = data.slice(i, i + 4);
        if (a !== 255 || Math.max(r, g, b) - Math.min(r, g, b) < 60) continue;
        const x = ((i / 4) % width) / scale, y = Math.floor(i / 4 / width) / scale;
        const near = marks.find((m) => Math.hypot(m.x - x, m.y - y) < 10);
        if (near) { near.n += 1; near.x += (x - near.x) / near.n; near.y += (y - near.y) / near.n; }
        else marks.push({ x, y, n: 1 });
    }
    return marks.filter((m) => m.n > 20).sort((m, n) => m.x - n.x).map((m) => [box.x + m.x, box.y + m.y]);
}"""


@dataclass(frozen=True)
class Brought:
    """What the person has: weights of `cifar_resnet8`, and pictures with labels and splits."""

    weights: Path
    pictures: Path


@dataclass(frozen=True)
class Arrived:
    """What the person ends with; accuracy: of the test split, as the page says it."""

    file: Path
    variant: str
    accuracy: str


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Brought:
    folder = tmp_path_factory.mktemp("brought")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = RESNETS["cifar_resnet8"](num_classes=len(CLASSES), in_channels=1)
    torch.save(net.state_dict(), folder / "digits.pt")
    draw = np.random.default_rng(0)
    labels = np.arange(SAMPLES) % len(CLASSES)
    patterns = draw.integers(0, 60, (len(CLASSES), SIDE, SIDE))
    images = (patterns[labels] + draw.integers(0, 196, (SAMPLES, SIDE, SIDE))).astype(np.uint8)
    split = np.array(["train", "validation", "test", "train", "calibration"])[np.arange(SAMPLES) // 3 % 5]
    np.savez(folder / "digits.npz", images=images, labels=labels, classes=np.array(CLASSES), split=split)
    return Brought(folder / "digits.pt", folder / "digits.npz")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with serving(tmp_path_factory.mktemp("data"), EVERYTHING, broker_url="") as running:
            yield running


@pytest.fixture(scope="module")
def arrived(web: Web, brought: Brought, tmp_path_factory: pytest.TempPathFactory) -> Arrived:
    with visiting(web.address) as page:
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        bring(page, brought)
        queue(page)
        return export(page, tmp_path_factory.mktemp("arrived"))


def bring(page: Page, brought: Brought) -> None:
    """Data first: its pictures tell the input size of a net that takes any."""
    zones = page.locator("input[type=file]")
    expect(zones).to_have_count(2)
    zones.nth(1).set_input_files(brought.pictures)
    expect(page.get_by_text(CHECKED)).to_have_count(1)
    architecture = page.get_by_role("combobox", name="Architecture")
    architecture.fill("cifar_resnet8")
    architecture.press("Enter")
    expect(page.get_by_role("spinbutton", name="Input (px)")).to_have_value(str(SIDE))
    zones.nth(0).set_input_files(brought.weights)
    expect(page.get_by_text(CHECKED)).to_have_count(2)


def queue(page: Page) -> None:
    page.get_by_role("link", name="New run").click()
    page.get_by_role("button", name="Queue run", exact=True).click()
    expect(page.get_by_text("· done ·")).to_be_visible()


def export(page: Page, folder: Path) -> Arrived:
    page.get_by_role("link", name="Trade-offs").click()
    page.locator(".vega-embed canvas").wait_for()
    choose_a_point(page)
    row = page.get_by_test_id("stTable").get_by_role("row").filter(has_text="Accuracy (test)")
    accuracy = row.get_by_role("cell").last.inner_text()
    page.get_by_role("button", name="Export", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Compared on")
    file = downloaded(dialog.get_by_role("link", name="Download"), folder)
    expect(dialog).to_contain_text(file.name)
    variant = page.url.partition("variant=")[2].partition("&")[0]
    return Arrived(file, variant, accuracy)


def choose_a_point(page: Page) -> None:
    """The fastest one; the chart may be drawn again while it gets its width."""
    for _ in range(10):
        page.wait_for_timeout(1000)
        for x, y in page.evaluate(MARKS):
            page.mouse.click(x, y)
            page.wait_for_timeout(1500)
            if page.get_by_role("button", name="Export", exact=True).is_visible():
                return
    raise AssertionError("no mark of the chart could be chosen")


def of_the_run(web: Web) -> Run:
    with reading(web.settings.database) as session:
        (run,) = (run for run in runs.all_of(session) if run.recipe["steps"])
        found = runs.whole(session, run.id)
    assert found is not None
    return found


def test_the_downloaded_file_is_as_accurate_as_the_page_says(
    web: Web, brought: Brought, arrived: Arrived
) -> None:
    """Measured with nothing but ONNX Runtime and numpy."""
    data = np.load(brought.pictures)
    rows = data["split"] == "test"
    inputs = data["images"][rows][:, None].astype(np.float32) / 255
    (logits,) = ort.InferenceSession(arrived.file).run(["logits"], {"input": inputs})
    accuracy = (logits.argmax(1) == data["labels"][rows]).mean()
    assert arrived.accuracy.replace("\u00a0", " ").startswith(f"{100 * accuracy:.1f} %")
    with reading(web.settings.database) as session:
        found = variants.whole(session, arrived.variant)
    assert found is not None
    (told,) = (m for m in found[0].measurements if (m.name, m.split) == ("accuracy", "test"))
    assert told.value == pytest.approx(accuracy, abs=1e-12)
    assert told.samples == rows.sum()


def test_a_terminal_comes_to_the_same_file(
    web: Web, brought: Brought, arrived: Arrived, tmp_path: Path
) -> None:
    """The same recipe, model, data and seed, in a folder that shares nothing with the dashboard's."""
    run = of_the_run(web)
    (tmp_path / "recipe.json").write_text(json.dumps(run.recipe))
    command = [
        sys.executable, "-m", "app.cli", "run", "recipe.json", "--model", str(brought.weights), "--arch",
        "cifar_resnet8", "--dataset", str(brought.pictures), "--out", "out", "--seed", str(run.seed),
    ]  # fmt: skip
    environment = {**os.environ, "PAREDOWN_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    for stage, told in zip(run.stages, (report["baseline"], *report["stages"]), strict=True):
        ours = {m.split: m.value for m in stage.variants[0].measurements if m.name == "accuracy"}
        theirs = {m["split"]: m["value"] for m in told["measurements"] if m["name"] == "accuracy"}
        assert ours == theirs
    draw = np.random.default_rng(1).normal(size=(16, 1, SIDE, SIDE)).astype(np.float32)
    logits = [
        ort.InferenceSession(file).run(["logits"], {"input": draw})[0]
        for file in (arrived.file, tmp_path / "out" / "model.onnx")
    ]
    np.testing.assert_array_equal(*logits)
