"""Documents about a stage, on both databases."""

import time

from sqlalchemy import update

from db import analyses, models_, runs
from db.models import Analysis
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
        assert [a.key for a in analyses.of_stage(session, "profile", stage_id)] == ["first", "second"]


def test_its_age_is_that_of_what_it_holds(url: str) -> None:
    run_id, started = new_run(url), time.time()
    with transaction(url) as session:
        stage_id = runs.save_stage(session, run_id, STAGE, []).id
    keep(url, stage_id, "first", 1)
    with transaction(url) as session:
        session.execute(update(Analysis).values(created_at=started - 86_400))
    keep(url, stage_id, "first", 2)
    with reading(url) as session:
        (found,) = analyses.of_stage(session, "profile", stage_id)
    assert found.created_at >= started


def test_what_was_broken_off_stands_behind_what_is_whole(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        stage_id = runs.save_stage(session, run_id, STAGE, []).id
        for key, whole in (("1", True), ("2", True), ("3", False)):
            document = {"whole": whole}
            analyses.save(session, "sensitivity", key, stage_id=stage_id, target=TARGET, document=document)
    with reading(url) as session:
        assert [row.key for row in analyses.of_stage(session, "sensitivity", stage_id)] == ["2", "1", "3"]


def test_the_same_content_is_found_for_any_stage(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        ids = [runs.save_stage(session, run_id, {**STAGE, "index": index}, []).id for index in (0, 1)]
    for stage_id in ids:
        keep(url, stage_id, f"content-{stage_id}", 1)
    with reading(url) as session:
        assert {row.stage_id for row in analyses.of_any_stage(session, "profile", "content")} == {*ids}
        assert [row.stage_id for row in analyses.of_stage(session, "profile", ids[0])] == ids[:1]
        assert analyses.of_any_stage(session, "profile", "contents") == []


def test_they_go_with_their_stage(url: str) -> None:
    run_id = new_run(url)
    with transaction(url) as session:
        stage_id = runs.save_stage(session, run_id, STAGE, []).id
    keep(url, stage_id, "first", 1)
    with transaction(url) as session:
        runs.save_stage(session, run_id, {**STAGE, "key": "other"}, [])  # replaces it
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
            ("linear", {"spots": [3]}),
            ("conv", {"spots": [2]}),
        ]
        assert analyses.of_model(session, "profile", model_id) == []
    with transaction(url) as session:
        models_.remove(session, model_id)
    with reading(url) as session:
        assert analyses.find(session, "blocks", "conv") is None
