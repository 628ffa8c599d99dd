"""Start, Models and Data in every state that an upload can be in."""

from typing import Any

import pytest

import app.imports
from db import datasets, jobs, models_, runs
from db.models import Job
from db.session import reading, transaction
from tests.app.views.conftest import Open
from tests.db.test_runs import STAGE

LAYER = {"name": "conv1", "type": "Conv2d", "parameters": 432, "about": "3, 16"}
BLOCK = {"name": "conv1", "layers": {"Conv2d": 1}, "parameters": 432, "inputs": [], "repeats": 1}
MODEL_FACTS = {
    "parameters": 77_600,
    "macs": 12_500_000,
    "size_bytes": 395_700,
    "layers": [LAYER],
    "blocks": [BLOCK],
}
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
    assert "RGB · to 32 × 32 px · values 0–1 · minus 0.5, 0.5, 0.5 · divided by 0.25, 0.25, 0.25" in texts(
        detail
    )


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
    assert any("Mean is not a list of numbers" in caption.value for caption in page.caption)
    assert page.button(key=f"again-{latest(url, model).id}").disabled  # type: ignore[union-attr]


def test_weights_that_take_any_size_ask_for_it(visit: Open, url: str) -> None:
    model = a_model(url, "failed", error=REFUSED)
    page = visit("models")
    page.selectbox(key=f"architecture-{model}").select("cifar_resnet8").run()
    again = page.button(key=f"again-{latest(url, model).id}")  # type: ignore[union-attr]
    assert again.disabled
    assert any("takes pictures of any size" in caption.value for caption in page.caption)
    page.number_input(key=f"size-{model}-cifar_resnet8").set_value(28).run()
    page.button(key=f"again-{latest(url, model).id}").click().run()  # type: ignore[union-attr]
    request = latest(url, model).request  # type: ignore[union-attr]
    assert request == {"noun": "model", "architecture": "cifar_resnet8", "size": 28}


@pytest.mark.parametrize(("largest", "side"), [([28, 28], 28), ([28, 30], None)])
def test_that_size_is_the_datas_where_its_pictures_are_alike(
    visit: Open, url: str, largest: list[int], side: int | None
) -> None:
    """As in a terminal, where the data is named beside the model."""
    model = a_model(url, "failed", error=REFUSED)
    with transaction(url) as session:
        added = datasets.add(session, name="digits", source="digits.npz", upload_sha256="c" * 64)
        facts = DATA_FACTS | {"smallest": [28, 28], "largest": largest}
        datasets.imported(session, added.id, sha256="d" * 64, facts=facts)
    page = visit("models")
    page.selectbox(key=f"architecture-{model}").select("cifar_resnet8").run()
    assert page.number_input(key=f"size-{model}-cifar_resnet8").value == side
    page.selectbox(key=f"architecture-{model}").select("resnet18").run()
    assert page.number_input(key=f"size-{model}-resnet18").value is None  # its own


def test_preprocessing_is_corrected_in_place_until_there_is_a_run(
    visit: Open, url: str, woken: list[str]
) -> None:
    model = a_model(url, "done")
    page = visit("models", model=model)
    assert page.text_input(key=f"mean-correct-{model}").value == "0.5, 0.5, 0.5"
    page.text_input(key=f"mean-correct-{model}").set_value("0.1, 0.2, 0.3").run()
    page.button(key=f"correct-{model}").click().run()
    job = latest(url, model)
    assert job is not None
    wanted = {"mean": [0.1, 0.2, 0.3], "std": [0.25] * 3, "size": 32, "architecture": "cifar_resnet8"}
    assert (job.state, job.request) == ("queued", {"noun": "model", **wanted})
    assert woken == [job.id]
    assert "77.6 k" in texts(page)  # still there while it is checked

    with transaction(url) as session:
        attempt = jobs.claim(session, job.id, "w")
        assert attempt is not None
        jobs.end(session, job.id, attempt, "failed", REFUSED)
    page = visit("models")
    assert "77.6 k" in texts(page)
    page.button(key=f"dismiss-{job.id}").click().run()
    assert "net.pt: holds weights only." not in texts(page)
    with reading(url) as session:
        assert models_.find(session, model) is not None


def test_a_model_with_runs_is_corrected_beside_itself(visit: Open, url: str) -> None:
    model = a_model(url, "done")
    with transaction(url) as session:
        data = datasets.add(session, name="d", source="sample", upload_sha256=None)
        experiment = runs.experiment_of(session, model, data.id)
        for accuracy in (0.5, 0.875):
            run = runs.add(session, experiment, name="Baseline", recipe={"name": "Baseline", "steps": []})
            numbers = [
                {"name": "accuracy", "value": value, "unit": "share", "better": "higher", "split": split}
                for split, value in (("test", 0.1), ("validation", accuracy))
            ]
            runs.save_stage(session, run.id, STAGE, numbers)
    page = visit("models", model=model)
    assert "87.5 %" in texts(page)
    page.button(key=f"correct-{model}").click().run()
    with reading(url) as session:
        found = {row.name: row for row in models_.all_of(session)}
        assert set(found) == {"net **x** <b>.pt", "net **x** <b> (corrected).pt"}
        corrected = found["net **x** <b> (corrected).pt"]
        assert corrected.upload_sha256 == found["net **x** <b>.pt"].upload_sha256
        assert jobs.latest(session, [corrected.id])[corrected.id].state == "queued"


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
