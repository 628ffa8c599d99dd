"""The page Where the time goes: nothing there, at work, and two files beside each other."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy.orm import Session
from streamlit.testing.v1 import AppTest

from app import session
from app.charts.profile import roofline
from app.components import graph_link
from app.components.plain import plain
from app.components.profile_panels import roofline_points
from app.profiles import Found, compared, layers_frame, left_to_win, sentence, speed
from db import analyses, jobs, runs, variants
from db.models import Analysis, Job, Stage
from tests.app.views.conftest import Open
from tests.support.profiles import AFTER, BEFORE, PEAKS, keep, layer, profile_of
from workers.profiling.profile import Profile


@pytest.fixture
def stages(experiment: str) -> list[tuple[str, str]]:
    """(stage, its own variant) of a run with two steps."""
    with session.reading() as opened:
        (run,) = (run for run in runs.of_experiment(opened, experiment) if run.name == "Pruned by 50 %")
    with session.writing() as opened:
        whole = runs.whole(opened, run.id)
        assert whole is not None
        for stage in whole.stages:
            stage.file_sha256 = f"{stage.index}" * 64
        return [(stage.id, stage.own.id) for stage in whole.stages]


def texts(page: AppTest) -> str:
    return "\n".join(str(element.value) for element in (*page.markdown, *page.caption, *page.info))


def kept(stages: list[tuple[str, str]], *, together: bool = True) -> None:
    """The last stage and the baseline, side by side or each for itself."""
    with session.writing() as opened:
        for place, profile, name in ((0, BEFORE, "s"), (2, AFTER, "s" if together else "t")):
            found = variants.whole(opened, stages[place][1])
            assert found is not None
            keep(opened, stages[place][0], found[1].file_sha256, profile, name)


def button(page: AppTest, label: str) -> bool:
    return any(one.label == label for one in page.button)


def test_without_a_point_it_leads_to_one(visit: Open, experiment: str) -> None:  # noqa: ARG001
    assert "Choose a point in Trade-offs" in texts(visit("profile"))
    assert "Choose a point in Trade-offs" in texts(visit("profile", variant="gone"))


def test_without_a_profile_one_button_asks_for_it(
    visit: Open, stages: list[tuple[str, str]], woken: list[str]
) -> None:
    page = visit("profile", variant=stages[2][1])
    assert "No profile yet" in texts(page)
    next(one for one in page.button if one.label == "Profile side by side").click().run()
    assert not page.exception
    with session.reading() as opened:
        job = opened.get_one(Job, woken[0])
    assert (job.kind, job.subject_id) == ("profile", stages[2][0])
    assert job.request == {"variants": [stages[2][1], stages[0][1]], "again": False}
    # Asked for once: the button waits, and the exits' page does not take it for a saved point.
    assert next(one for one in page.button if one.label == "Profile side by side").disabled
    with session.reading() as opened:
        assert jobs.latest(opened, [stages[2][0]], "thresholds") == {}


def test_what_failed_says_why(visit: Open, stages: list[tuple[str, str]]) -> None:
    with session.writing() as opened:
        job = jobs.add(opened, "profile", stages[2][0], queue="cpu", request={})
        job.state, job.error = "failed", {"where": "model.onnx", "what": "cannot be loaded.", "fix": "Retry."}
    assert "cannot be loaded." in "\n".join(
        str(text.value) for text in visit("profile", variant=stages[2][1]).text
    )


def test_two_files_beside_each_other(visit: Open, stages: list[tuple[str, str]]) -> None:
    kept(stages)
    page = visit("profile", variant=stages[2][1])
    assert page.query_params["against"] == stages[0][1]
    told = texts(page)
    assert "conv2.1 and conv2.0 take 62" in told
    assert "Operators add up to 1.90\u00a0ms, 95\u00a0% of the 2.00\u00a0ms" in told
    assert "without the profile · contended." in told
    assert "1.8x faster" in told
    layers, both = (frame.value for frame in page.dataframe)
    assert list(layers["name"])[:2] == ["conv2.1", "conv2.0"]
    assert dict(zip(both["name"], both["change"], strict=True))["conv2"] == "1.6x faster"
    assert button(page, "Profile again")
    page.segmented_control(key="colour").set_value("Precision").run()
    assert not page.exception
    linked = visit("profile", variant=stages[2][1], colour="MACs")
    assert linked.segmented_control(key="colour").value == "MACs"


def test_one_query_finds_the_profiles_and_only_what_is_shown_is_read(
    visit: Open, stages: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(stages)
    kept(stages, together=False)
    asked: list[list[str]] = []
    read: list[str] = []
    found, of = analyses.of_stages, Found.of

    def finding(opened: Session, kind: str, stage_ids: list[str]) -> list[Analysis]:
        asked.append(stage_ids)
        return found(opened, kind, stage_ids)

    def reading(document: Mapping[str, Any], target: Mapping[str, Any], taken_at: float) -> Found:
        read.append(document["session"])
        return of(document, target, taken_at)

    monkeypatch.setattr(analyses, "of_stages", finding)
    monkeypatch.setattr(Found, "of", reading)
    visit("profile", variant=stages[2][1])
    assert asked == [[stages[2][0], stages[0][0]]]
    assert read == ["s", "s"]


def test_the_same_file_twice_is_one_profile(
    visit: Open, stages: list[tuple[str, str]], woken: list[str]
) -> None:
    with session.writing() as opened:
        opened.get_one(Stage, stages[2][0]).file_sha256 = "0" * 64
    page = visit("profile", variant=stages[2][1])
    assert page.query_params["against"] == stages[0][1]
    assert "Both are the same file." in texts(page)
    next(one for one in page.button if one.label == "Profile").click().run()
    with session.reading() as opened:
        assert opened.get_one(Job, woken[0]).request["variants"] == [stages[2][1]]
    assert "Both are the same file." not in texts(visit("profile", variant=stages[1][1]))


def test_a_name_of_the_file_is_shown_as_it_is(visit: Open, stages: list[tuple[str, str]]) -> None:
    """As Markdown, the browser would ask another site for a picture."""
    keep_alone(stages[2], profile_of([layer("![x](http://host/p.png)", 1.0)], 1.5))
    told = texts(visit("profile", variant=stages[2][1], against=""))
    assert f"{plain('![x](http://host/p.png)')} takes 67" in told
    assert "![x](" not in told


@pytest.mark.parametrize("names", [["pool", "add"], []])
def test_a_file_in_which_nothing_multiplies(
    visit: Open, stages: list[tuple[str, str]], names: list[str]
) -> None:
    layers = [layer(name, 0.5, macs=0, weighted=False, precision="") for name in names]
    for added in (0.1, None):
        profile = profile_of(layers, 1.5)
        keep_alone(stages[2], profile if added else profile.model_copy(update={"added": None}))
        page = visit("profile", variant=stages[2][1], against="")
        told = texts(page)
        assert "No layer of this file multiplies." in told
        assert ("pool and add take 67" if names else "No layer of this file was timed.") in told
        assert list(page.dataframe[0].value["name"])[-1] in ("Reorder, quantize, other", "Between operators")
    keep_alone(stages[0], BEFORE)
    assert not visit("profile", variant=stages[2][1]).exception


def keep_alone(point: tuple[str, str], profile: Profile) -> None:
    with session.writing() as opened:
        found = variants.whole(opened, point[1])
        assert found is not None
        keep(opened, point[0], found[1].file_sha256, profile)


def test_without_netron_a_sentence_says_how_to_get_it(
    visit: Open, stages: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "netron" not in texts(visit("profile", variant=stages[2][1]))
    monkeypatch.setattr(graph_link, "netron_folder", lambda: None)
    assert "pip install 'paredown[graph]'" in texts(visit("profile", variant=stages[2][1]))


def test_times_of_two_sessions_are_not_compared(visit: Open, stages: list[tuple[str, str]]) -> None:
    kept(stages, together=False)
    page = visit("profile", variant=stages[2][1])
    assert len(page.dataframe) == 1
    assert button(page, "Profile side by side")
    alone = visit("profile", variant=stages[2][1], against="")
    assert button(alone, "Profile again")


def test_shares_and_speeds_of_one_file() -> None:
    frame = layers_frame(AFTER).set_index("name")
    assert frame["share"].sum() == pytest.approx(1)
    assert frame.loc["Between operators", "ms"] == pytest.approx(2.0 - 1.9)
    assert frame.loc["conv1", "gflops"] == pytest.approx(2 * 1e6 / 0.25e-3 / 1e9)
    assert frame.loc["conv1", "of_roof"] == pytest.approx(0.5)
    assert frame.loc["conv1", "intensity"] == pytest.approx(200)


def test_a_layer_that_was_split_counts_as_the_one_it_was() -> None:
    both = compared(BEFORE, AFTER).set_index("name")
    assert list(both.index) == [
        "conv1", "conv2", "Operators without weights", "Reorder, quantize, other", "Between operators",
    ]  # fmt: skip
    assert both.loc["conv2", "ms_after"] == pytest.approx(1.25)
    assert both.loc["conv2", "macs_after"] == pytest.approx(1.5e6)
    assert both.loc["conv1", "precision_after"] == "int8"
    assert both["ms_before"].sum() == pytest.approx(BEFORE.latency_ms)
    assert both["ms_after"].sum() == pytest.approx(AFTER.latency_ms)


def test_one_sentence_says_where_and_what_is_left() -> None:
    assert sentence(BEFORE) == "conv2 takes 57\u00a0% of 3.50\u00a0ms."
    many = profile_of([layer(f"conv{place}", 0.1) for place in range(20)], 2.1)
    assert sentence(many).startswith("The 11 slowest of 20 layers take 52\u00a0% of 2.10\u00a0ms")
    assert "1.65\u00a0ms instead of 3.30\u00a0ms" in left_to_win(BEFORE)
    assert "4.0x as high" in left_to_win(BEFORE)


def test_speeds_have_the_unit_of_what_is_counted_and_two_digits() -> None:
    assert speed(1234.5, "float32") == "1,234\u00a0GFLOP/s"
    assert speed(12.5, "int8") == "12\u00a0GOP/s"
    assert speed(0.0342, None) == "0.034\u00a0GFLOP/s"


def test_roofs_and_points_of_the_roofline_are_told_in_their_units() -> None:
    hover = roofline_points([("After", AFTER)])["hover"]
    assert hover.iloc[0] == "conv1: 8.0\u00a0GOP/s, 50\u00a0% of its roof, 0.250\u00a0ms"
    assert hover.iloc[2] == "conv2.1: 1.3\u00a0GFLOP/s, 50\u00a0% of its roof, 0.750\u00a0ms"
    made = json.dumps(roofline(roofline_points([("After", AFTER)]), PEAKS).to_dict(), ensure_ascii=False)
    assert "int8: 400\u00a0GOP/s, from memory 20\u00a0GB/s" in made
    assert "float32: 100\u00a0GFLOP/s" in made
