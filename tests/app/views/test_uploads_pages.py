"""Start, Models and Data in every state that an upload can be in."""

from typing import Any

import pytest

import app.imports
from db import datasets, jobs, models_
from db.models import Job
from db.session import reading, transaction
from tests.app.views.conftest import Open

LAYER = {"name": "conv1", "type": "Conv2d", "parameters": 432, "about": "3, 16"}
MODEL_FACTS = {"parameters": 77_600, "macs": 12_500_000, "size_bytes": 395_700, "layers": [LAYER]}
PREPROCESSING = {
    "kind": "image", "channels": 3, "height": 32, "width": 32, "resize": None, "mean": [0.5] * 3,
    "std": [0.25] * 3,
}  # fmt: skip
SPEC = {"name": "n", "architecture": "cifar_resnet8", "classes": 3, "preprocessing": PREPROCESSING}
DATA_FACTS = {
    "classes": [{"name": "cat", "count": 23}, {"name": "<b>dog", "count": 30}],
    "splits": {"train": 30, "calibration": 8, "validation": 8, "test": 7},
    "channels": 3,
    "smallest": [32, 32],
    "largest": [64, 48],
    "problems": ["1 picture cannot be read; it is left out: **dog**/3.png."],
    "samples": [{"sha256": "0" * 64, "class": "cat"}],
}
REFUSED = {
    "where": "net.pt",
    "what": "holds weights only.",
    "fix": "Export it: torch.export.save(program, 'model.pt2').",
}


@pytest.fixture(autouse=True)
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(app.imports, "_wake", told.append)
    return told


def a_model(url: str, state: str, **values: Any) -> str:
    with transaction(url) as session:
        model = models_.add(session, name="net **x** <b>.pt", upload_sha256="a" * 64)
        job = jobs.add(session, "import", model.id, queue="cpu", request={"noun": "model"})
        job.state = state
        for name, value in values.items():
            setattr(job, name, value)
        if state == "done":
            models_.imported(
                session, model.id, spec=SPEC, facts=MODEL_FACTS, file_sha256="b" * 64, file_name="model.pt2"
            )
        return model.id


def latest(url: str, subject_id: str) -> Job | None:
    with reading(url) as session:
        return jobs.latest(session, [subject_id]).get(subject_id)


def texts(page: Any) -> list[str]:
    return [element.value.replace("\u00a0", " ") for element in page.text]


def test_an_empty_page_says_what_to_do(visit: Open) -> None:
    assert "No model yet" in visit("models").info[0].value
    assert "No data yet" in visit("data").info[0].value


def test_a_name_is_shown_as_it_is(visit: Open, url: str) -> None:
    a_model(url, "done")
    assert "net **x** <b>.pt" in texts(visit("models"))  # plain text, not Markdown


def test_a_card_shows_the_numbers_and_the_link_opens_its_detail(visit: Open, url: str) -> None:
    model = a_model(url, "done")
    assert {"77.6 k", "12.5 M", "386.4 KiB", "3 × 32 × 32"} <= set(texts(visit("models")))
    assert len(visit("models").dataframe) == 0
    detail = visit("models", model=model)
    assert detail.dataframe[0].value["Name"].tolist() == ["conv1"]
    assert any("mean 0.5, 0.5, 0.5" in text for text in texts(detail))


def test_a_refused_model_says_why_and_can_be_checked_again(visit: Open, url: str, woken: list[str]) -> None:
    model = a_model(url, "failed", error=REFUSED)
    page = visit("models")
    assert "net.pt: holds weights only." in texts(page)
    assert page.code[-1].value == "torch.export.save(program, 'model.pt2')"
    page.selectbox(key=f"architecture-{model}").select("resnet18")
    page.button(key=f"again-{latest(url, model).id}").click().run()  # type: ignore[union-attr]
    again = latest(url, model)
    assert again is not None
    assert (again.state, again.request) == ("queued", {"noun": "model", "architecture": "resnet18"})
    assert woken == [again.id]


def test_a_refused_model_can_be_removed(visit: Open, url: str) -> None:
    model = a_model(url, "failed", error=REFUSED)
    job = latest(url, model)
    assert job is not None
    visit("models").button(key=f"remove-{job.id}").click().run()
    with reading(url) as session:
        assert models_.find(session, model) is None
    assert latest(url, model) is None


def test_wrong_numbers_are_told_and_not_queued(visit: Open, url: str) -> None:
    model = a_model(url, "failed", error=REFUSED)
    page = visit("models")
    page.text_input(key=f"mean-{model}").input("a half").run()
    assert "is not a list of numbers" in page.error[0].value
    assert page.button(key=f"again-{latest(url, model).id}").disabled  # type: ignore[union-attr]


def test_a_dataset_shows_splits_sizes_and_what_was_found(visit: Open, url: str) -> None:
    with transaction(url) as session:
        dataset = datasets.add(session, name="pets.zip", source="pets.zip", upload_sha256="c" * 64)
        datasets.imported(session, dataset.id, sha256="d" * 64, facts=DATA_FACTS)
    page = visit("data")
    assert page.caption[0].value == "53 colour pictures of 32 × 32 px to 48 × 64 px in 2 classes"
    assert "30 samples" in texts(page)
    assert "• 1 picture cannot be read; it is left out: **dog**/3.png." in texts(page)


def test_the_sample_is_two_imports(visit: Open, url: str, woken: list[str]) -> None:
    next(button for button in visit("start").button if "sample" in button.label).click().run()
    with reading(url) as session:
        subjects = [models_.all_of(session)[0].id, datasets.all_of(session)[0].id]
        nouns = {job.request["noun"] for job in jobs.latest(session, subjects).values()}
    assert nouns == {"sample_model", "dataset"}
    assert len(woken) == 2
