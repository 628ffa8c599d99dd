"""Trade-offs: one target at a time, the goal in one sentence, the choice in the URL, test in the detail."""

import json
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from app import session
from db import runs, variants
from db.models import Experiment, Stage, Variant
from tests.app.views.conftest import Open
from tests.support.experiments import LAPTOP


def ids(experiment: str) -> dict[str, str]:
    with session.reading() as opened:
        rows = variants.comparison(opened, experiment)
    return {f"{row['name']}/{row['index']}": row["variant"] for row in rows}


def texts(page: AppTest) -> str:
    return "\n".join(str(element.value) for element in (*page.markdown, *page.caption, *page.info))


def test_empty_project_says_what_to_do(visit: Open) -> None:
    assert "No measured variant yet" in texts(visit("tradeoffs"))


def test_best_within_goal_is_one_sentence(visit: Open, experiment: str) -> None:
    page = visit("tradeoffs")
    assert "**Best within goal:** Pruned by 50 % is 1.9x faster for 0.7 points." in texts(page)
    page.slider(key=f"drop-{experiment}").set_value(0.2).run()
    assert "no variant meets it yet" in texts(page)


def goal(experiment: str) -> dict[str, float]:
    with session.reading() as opened:
        return dict(next(e for e in runs.experiments(opened) if e.id == experiment).goal)


def test_a_moved_goal_is_kept_with_the_experiment_and_in_the_url(visit: Open, experiment: str) -> None:
    page = visit("tradeoffs")
    assert goal(experiment) == {"max_drop_points": 1.0, "max_latency_ratio": 0.6}
    page.slider(key=f"ratio-{experiment}").set_value(0.35).run()
    assert goal(experiment) == {"max_drop_points": 1.0, "max_latency_ratio": 0.35}
    assert page.query_params["ratio"] == "0.35"
    assert visit("tradeoffs").slider(key=f"ratio-{experiment}").value == 0.35


def test_a_link_with_another_goal_changes_nothing_that_is_kept(visit: Open, experiment: str) -> None:
    page = visit("tradeoffs", drop="5", ratio="nonsense")
    assert page.slider(key=f"drop-{experiment}").value == 5
    assert page.slider(key=f"ratio-{experiment}").value == 0.6
    assert goal(experiment) == {"max_drop_points": 1.0, "max_latency_ratio": 0.6}


def test_only_what_runs_came_to_is_a_point_until_every_stage_is_asked_for(
    visit: Open,
    experiment: str,  # noqa: ARG001
) -> None:
    page = visit("tradeoffs")
    assert len(page.dataframe[0].value) == 4
    page.toggle(key="stages").set_value(True).run()
    table = page.dataframe[0].value.set_index("label")
    assert len(table) == 7
    assert not table.loc["Pruned by 50 % · stage 1", ["front", "feasible"]].any()


def test_goal_in_the_url_is_the_goal(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("tradeoffs", drop="5.0", ratio="0.4")
    assert "Pruned by 70 % is 2.9x faster" in texts(page)


def test_targets_are_never_mixed(visit: Open, experiment: str) -> None:
    page = visit("tradeoffs")
    table = page.dataframe[0].value
    with session.reading() as opened:
        rows = variants.comparison(opened, experiment)
    own = [r for r in rows if json.loads(r["target"]) == LAPTOP]
    assert len(table) < len(own)  # the uploaded model is one row
    assert set(table["latency_ms"].round(6)) <= {round(r["latency_ms"], 6) for r in own}
    page.selectbox(key="target").select_index(1).run()
    assert set(page.dataframe[0].value["latency_ms"]).isdisjoint(table["latency_ms"])


def test_only_feasible_keeps_the_baseline(visit: Open, experiment: str) -> None:  # noqa: ARG001
    page = visit("tradeoffs", feasible="true")
    assert list(page.dataframe[0].value["label"]) == ["Baseline", "Pruned by 50 %"]


def test_chosen_point_of_the_url_opens_its_panel_with_the_test_figure(visit: Open, experiment: str) -> None:
    found = ids(experiment)
    page = visit("tradeoffs", variant=found["Pruned by 50 %/2"])
    numbers = page.table[0].value
    assert list(numbers.columns) == ["Baseline", "Pruned by 50 %"]
    assert "Accuracy (test)" in numbers.index
    assert page.dataframe[0].value["label"].iloc[0] == "Pruned by 50 %"
    assert "test" not in " ".join(page.dataframe[0].value.columns)


def test_second_point_is_compared(visit: Open, experiment: str) -> None:
    found = ids(experiment)
    page = visit("tradeoffs", variant=found["Pruned by 50 %/2"], second=found["Pruned by 30 %/2"])
    told = page.table[0].value.map(lambda cell: cell.replace("\u00a0", " "))
    assert list(told.columns) == ["Baseline", "Pruned by 50 %", "Pruned by 30 %", "Difference"]
    assert told["Difference"].to_dict() == {
        "Accuracy (validation)": "+0.5 points",
        "Accuracy (test)": "+0.5 points",
        "Latency to baseline": "1.4x slower",  # 0.74 / 0.52
        "Latency p50": "–",  # of two sessions
        "Latency p90": "–",
        "Latency p99": "–",
        "Size": "+40 %",  # 0.7 / 0.5
        "Parameters": "+40 %",
        "MACs": "+40 %",
    }
    stages = [list(table.value.index) for table in page.table[1:]]
    assert stages == [["Baseline", "Structured pruning", "Fine-tuning"]] * 2


def test_answers_are_compared_sample_by_sample(visit: Open, experiment: str, tmp_path: Path) -> None:
    found = ids(experiment)
    points = [found["Pruned by 50 %/2"], found["Pruned by 30 %/2"]]
    guesses = {points[0]: [0, 0, 1, 1], points[1]: [0, 1, 1, 1]}
    with session.writing() as opened:
        for variant, answers in guesses.items():
            np.savez(tmp_path / "answers.npz", validation=answers, validation_labels=[0, 1, 1, 1])
            stage = opened.get_one(Stage, opened.get_one(Variant, variant).stage_id)
            stage.answers_sha256 = session.artifacts().add(tmp_path / "answers.npz")
        dataset = opened.get_one(Experiment, experiment).dataset
        dataset.facts = {"classes": [{"name": "cat", "count": 1}, {"name": "dog", "count": 3}]}
    page = visit("tradeoffs", variant=points[0], second=points[1])
    told = " ".join(element.value for element in page.text)
    assert "1 samples are right only in Pruned by 30 %, 0 only in Pruned by 50 %" in told
    assert "chance explains that (McNemar p = 1)" in told
    per_class, flipped = (frame.value for frame in page.dataframe[:2])
    assert per_class.to_numpy().tolist() == [["cat", 100.0, 100.0, 0.0], ["dog", 66.7, 100.0, 33.3]]
    assert flipped.to_numpy().tolist() == [[1, "dog", "cat", "dog"]]


def test_a_stage_on_the_way_is_compared_up_to_itself(visit: Open, experiment: str) -> None:
    found = ids(experiment)
    page = visit("tradeoffs", variant=found["Pruned by 50 %/1"], second=found["Pruned by 50 %/2"])
    assert [len(table.value) for table in page.table[1:]] == [2, 3]
    assert page.table[0].value.loc["Latency to baseline", "Difference"] == "as fast"


def test_clearing_the_choice_clears_the_url(visit: Open, experiment: str) -> None:
    page = visit("tradeoffs", variant=ids(experiment)["Pruned by 50 %/2"])
    next(button for button in page.button if button.label == "Close").click().run()
    assert "variant" not in page.query_params
    assert not page.table


def test_variant_that_is_gone_is_no_error(visit: Open, experiment: str) -> None:  # noqa: ARG001
    assert not visit("tradeoffs", variant="nothing").table


def test_what_speaks_against_the_baseline_is_said_once_above_the_chart(visit: Open, experiment: str) -> None:
    assert not visit("tradeoffs").warning
    sentence = "The uploaded model is right on 20.0% of the validation samples."
    with session.writing() as opened:
        for run in runs.of_experiment(opened, experiment):
            run.warnings = [sentence]
    (warning,) = visit("tradeoffs").warning
    assert warning.value == sentence
