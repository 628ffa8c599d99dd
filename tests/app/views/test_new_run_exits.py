"""New run, the exits of a recipe: before the model's blocks are known, while they are timed, and on the line.

What is done on the line itself is tested in a browser (tests/e2e/test_exit_line.py).
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app import session
from app.blocks import LEAST, merged, proposals
from app.queueing import queue_blocks
from db import jobs
from db.models import Experiment, Job, Model
from tests.app.views.conftest import Open
from tests.app.views.test_new_run import press, recipe
from tests.app.views.test_tradeoffs import texts
from tests.support import blocks
from workers.exits.placing import Spot

EXITS = {"method": "early_exit", "exits": 2}


def opened(visit: Open, *steps: dict[str, Any], **query: str) -> AppTest:
    return visit("new_run", recipe=json.dumps({"name": "Mine", "steps": steps or [EXITS]}), **query)


def exits(page: AppTest) -> Any:
    return next(step["exits"] for step in recipe(page)["steps"] if step["method"] == "early_exit")


def line(page: AppTest) -> dict[str, Any] | None:
    """What the line is given to draw; None where there is none."""
    found = [
        json.loads(element.proto.json)
        for element in page.get("bidi_component")
        if element.proto.component_name == "paredown_exit_line"
    ]
    return found[0] if found else None


def model_of(experiment: str) -> Model:
    with session.reading() as opened:
        return opened.get_one(Experiment, experiment).model


def ended(job: Job, state: str, error: dict[str, str] | None = None) -> None:
    with session.writing() as opened:
        row = opened.get_one(Job, job.id)
        row.state, row.error = state, error


def newest(experiment: str) -> Job:
    model = model_of(experiment)
    with session.reading() as opened:
        return jobs.latest(opened, [model.id], "blocks")[model.id]


def test_before_they_are_known_there_is_a_number(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = opened(visit)
    assert line(page) is None
    page.number_input(key="step-0-0-exits-number").set_value(3).run()
    assert exits(page) == 3
    assert [box.label for box in page.text_input] == ["Name"]  # no YAML of one setting


def test_they_are_asked_for_and_waited_for(visit: Open, experiment: str, woken: list[str]) -> None:
    page = opened(visit)
    press(page, "Show the blocks")
    job = newest(experiment)
    assert woken == [job.id]
    assert job.request["head"] == "auto"
    labels = [button.label for button in page.button]
    assert "Cancel" in labels
    assert "Show the blocks" not in labels
    press(page, "Cancel")
    assert newest(experiment).state == "cancelled"
    assert "Show the blocks" in [button.label for button in page.button]


def test_why_they_could_not_be_timed(visit: Open, experiment: str, woken: list[str]) -> None:
    press(opened(visit), "Show the blocks")
    told = {"where": "early_exit", "what": "this model cannot be cut.", "fix": "Leave them out."}
    ended(newest(experiment), "failed", told)
    page = opened(visit)
    assert "early_exit: this model cannot be cut." in [element.value for element in page.text]
    press(page, "Try again")
    assert len(woken) == 2


def test_a_job_for_other_heads_is_another_question(visit: Open, experiment: str, woken: list[str]) -> None:
    press(opened(visit), "Show the blocks")
    page = opened(visit, EXITS | {"head": "conv"})
    assert "Show the blocks" in [button.label for button in page.button]
    press(page, "Show the blocks")
    assert newest(experiment).request["head"] == "conv"
    assert len(woken) == 2


def test_known_ones_are_drawn_with_what_a_run_would_choose(visit: Open, experiment: str) -> None:
    with session.writing() as opened_:
        blocks.keep(opened_, experiment)
    page = opened(visit)
    given = line(page)
    assert given is not None
    assert [spot["name"] for spot in given["spots"]] == list(blocks.NAMES)
    assert given["exits"] == 2
    assert given["proposed"]["2"] == ["relu_4", "relu_8"]  # 0.25 and 0.5; 0.55 is less near
    assert "Shares of the latency: onnxruntime 1.32.0" in texts(page)
    assert "as uploaded" not in texts(page)
    assert exits(page) == 2
    assert not [box for box in page.number_input if box.label == "Exits"]
    page.selectbox(key="step-0-0-head").set_value("conv").run()
    assert line(page) is None  # other heads take other times


def test_places_by_name_stay_while_the_line_is_not_known(visit: Open, experiment: str) -> None:
    named = EXITS | {"exits": ["relu_1", "relu_5"]}
    page = opened(visit, named)
    assert "Exits after relu\\_1, relu\\_5" in texts(page)
    assert exits(page) == ["relu_1", "relu_5"]
    press(page, "Place 2 by time")
    assert exits(page) == 2
    assert page.number_input(key="step-0-0-exits-number").value == 2
    with session.writing() as opened_:
        blocks.keep(opened_, experiment)
    given = line(opened(visit, named))
    assert given is not None
    assert given["exits"] == ["relu_1", "relu_5"]


def test_what_was_timed_in_another_runtime_is_not_shown(visit: Open, experiment: str) -> None:
    with session.writing() as opened_:
        blocks.keep(opened_, experiment, runtime="openvino")
    assert line(opened(visit)) is None
    assert line(opened(visit, runtime="openvino")) is not None
    with session.writing() as opened_:
        blocks.keep(opened_, experiment)
    for runtime in ("all", "fastest", "torch_eager"):  # whose steps choose by times in the usual one
        given = line(opened(visit, runtime=runtime))
        assert given is not None, runtime


def test_pruning_before_them_is_told(visit: Open, experiment: str) -> None:
    with session.writing() as opened_:
        blocks.keep(opened_, experiment)
    page = opened(visit, {"method": "structured_pruning"}, EXITS)
    assert line(page) is not None
    assert "as uploaded. Steps before this one may change them" in texts(page)


def test_an_onnx_file_is_not_cut(visit: Open, experiment: str) -> None:
    with session.writing() as opened_:
        opened_.get_one(Experiment, experiment).model.file_name = "model.onnx"
        blocks.keep(opened_, experiment)
    page = opened(visit)
    assert page.number_input(key="step-0-0-exits-number").value == 2
    assert line(page) is None
    assert "Show the blocks" not in [button.label for button in page.button]


def test_the_job_says_nothing_of_how_the_model_stands(experiment: str, woken: list[str]) -> None:  # noqa: ARG001
    model = model_of(experiment)
    with session.writing() as opened_:
        imported = jobs.add(opened_, "import", model.id, queue="cpu", request={}).id
    queue_blocks(model.id, {})
    with session.reading() as opened_:
        assert jobs.latest(opened_, [model.id])[model.id].id == imported


def spots(*shares: float) -> list[Spot]:
    return [Spot(name=f"at {share}", share=share, head=0.01) for share in shares]


def test_cuts_that_are_close_are_one_unless_they_are_named() -> None:
    close = spots(0.01, 0.2, 0.2 + LEAST / 2, 0.5, 0.97, 1.0)
    assert [spot.share for spot in merged(close, ())] == [0.2, 0.5]
    assert [spot.share for spot in merged(close, ["at 0.22", "at 1.0"])] == [0.2, 0.22, 0.5, 1.0]
    cheaper = [close[1], close[2].model_copy(update={"share": 0.205, "head": 0.0})]
    assert [spot.share for spot in merged(cheaper, ())] == [0.205]


def test_a_hundred_cuts_become_few() -> None:
    many = spots(*(number / 101 for number in range(1, 101)))
    shown = merged(many, ())
    assert len(shown) <= 1 / LEAST
    assert all(later.share - earlier.share >= LEAST - 1e-9 for earlier, later in pairwise(shown))


@pytest.mark.parametrize(("shares", "found"), [((0.3, 0.5, 0.8), 3), ((0.5, 0.55), 1), ((0.95,), 0)])
def test_a_number_gives_as_many_as_there_is_room_for(shares: tuple[float, ...], found: int) -> None:
    assert len(proposals(spots(*shares))[3]) == found
