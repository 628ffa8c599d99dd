"""Documents about a stage, on both databases."""

from db import analyses, models_, runs
from db.session import reading, transaction
from tests.db.test_runs import STAGE, new_run

TARGET = {"host": "h", "runtime": "onnxruntime", "threads": 1, "batch": 1}


def keep(url: str, stage_id: str, key: str, value: int) -> None:
    with transaction(url) as session:
        document = {"layers": [value]}
        analyses.save(session, "profile", key, stage_id=stage_id, target=TARGET, document=document)


def test_what_is_asked_again_is_found_and_replaced_by_its_key(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        stage_id = runs.save_stage(session, run_id, STAGE, []).id
    for key, value in (("first", 1), ("second", 2), ("first", 3)):
        keep(url, stage_id, key, value)
    with reading(url) as session:
        found = analyses.find(session, "profile", "first")
        assert found is not None
        assert (found.document, found.target) == ({"layers": [3]}, TARGET)
        assert analyses.find(session, "sensitivity", "first") is None
        assert [a.key for a in analyses.of_stage(session, "profile", stage_id)] == ["second", "first"]


def test_they_go_with_their_stage(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        stage_id = runs.save_stage(session, run_id, STAGE, []).id
    keep(url, stage_id, "first", 1)
    with transaction(url) as session:
        runs.save_stage(session, run_id, STAGE, [])  # replaces it
    with reading(url) as session:
        assert analyses.find(session, "profile", "first") is None


def test_those_of_several_stages_come_newest_first(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        stages = [runs.save_stage(session, run_id, STAGE | {"index": place}, []).id for place in range(3)]
    for stage, key in ((1, "old"), (0, "middle"), (2, "of another"), (1, "new")):
        keep(url, stages[stage], key, 0)
    with reading(url) as session:
        found = analyses.of_stages(session, "profile", stages[:2])
        assert [row.key for row in found] == ["new", "middle", "old"]
        assert analyses.of_stages(session, "profile", []) == []


def test_of_a_model_before_any_run(url: str) -> None:
    with transaction(url) as session:
        model_id = models_.add(session, name="m", upload_sha256="1" * 64).id
    for key, value in (("linear", 1), ("conv", 2), ("linear", 3)):
        with transaction(url) as session:
            document = {"spots": [value]}
            analyses.save(session, "blocks", key, model_id=model_id, target=TARGET, document=document)
    with reading(url) as session:
        found = analyses.of_model(session, "blocks", model_id)
        assert [(row.key, row.document) for row in found] == [
            ("conv", {"spots": [2]}),
            ("linear", {"spots": [3]}),
        ]
        assert analyses.of_model(session, "profile", model_id) == []
    with transaction(url) as session:
        models_.remove(session, model_id)
    with reading(url) as session:
        assert analyses.find(session, "blocks", "conv") is None
