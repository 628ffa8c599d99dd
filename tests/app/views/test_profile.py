"""The page Where the time goes: nothing there, at work, and two files beside each other."""

import pytest
from streamlit.testing.v1 import AppTest

from app import session
from app.components import graph_link
from app.profiles import compared, layers_frame, left_to_win, sentence
from db import jobs, runs, variants
from db.models import Job
from tests.app.views.conftest import Open
from tests.support.profiles import AFTER, BEFORE, keep, layer, profile_of


@pytest.fixture
def stages(experiment: str) -> list[tuple[str, str]]:
    """(stage, its own variant) of a run with two steps."""
    with session.reading() as opened:
        (run,) = (run for run in runs.of_experiment(opened, experiment) if run.name == "Pruned by 50 %")
        whole = runs.whole(opened, run.id)
        assert whole is not None
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
    assert "contended" in told
    assert "1.8x faster" in told
    layers, both = (frame.value for frame in page.dataframe)
    assert list(layers["name"])[:2] == ["conv2.1", "conv2.0"]
    assert dict(zip(both["name"], both["change"], strict=True))["conv2"] == "1.6x faster"
    assert button(page, "Profile again")
    page.segmented_control(key="colour").set_value("Precision").run()
    assert not page.exception


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
