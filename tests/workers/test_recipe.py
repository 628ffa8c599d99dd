import json
import time
from pathlib import Path
from typing import get_args

import pytest

from workers import recipe as recipes
from workers.base import Candidate, Context, Family, Method
from workers.errors import RecipeRefused
from workers.recipe import MAX_BYTES, ORDER, Recipe, parse_recipe, read_recipe, step_id, write_recipe

TWO_STEPS = """\
name: Half – ½
steps:
- method: structured_pruning
  amount: 0.4
- method: fine_tuning
  epochs: 2
  learning_rate: 1e-3
"""


def refusal(text: str | bytes) -> RecipeRefused:
    with pytest.raises(RecipeRefused) as caught:
        parse_recipe(text, "r.yaml")
    return caught.value


def test_steps_in_order_with_defaults() -> None:
    recipe = parse_recipe(TWO_STEPS, "r.yaml")
    assert recipe.name == "Half – ½"
    assert [step_id(step) for step in recipe.steps] == ["structured_pruning", "fine_tuning"]
    pruning, tuning = (step.model_dump() for step in recipe.steps)
    assert (pruning["amount"], pruning["round_to"]) == (0.4, 8)
    assert (tuning["epochs"], tuning["learning_rate"], tuning["batch_size"]) == (2, 0.001, 128)


def test_no_step_is_the_baseline() -> None:
    assert parse_recipe("name: baseline", "r.yaml").steps == ()
    assert parse_recipe("steps: []", "r.yaml").steps == ()


def test_round_trip_through_yaml_and_json() -> None:
    recipe = parse_recipe(TWO_STEPS, "r.yaml")
    written = write_recipe(recipe)
    assert "round_to: 8" in written
    assert parse_recipe(written, "r.yaml") == recipe
    for indent in (None, 2, "\t"):
        for ensure_ascii in (True, False):
            text = json.dumps(recipe.model_dump(mode="json"), indent=indent, ensure_ascii=ensure_ascii)
            assert parse_recipe(text, "r.json") == recipe


def test_json_takes_characters_beyond_the_first_plane() -> None:
    assert parse_recipe('{"name": "\\ud83d\\ude80"}', "r.json").name == "🚀"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_editors_of_windows(encoding: str) -> None:
    assert parse_recipe(TWO_STEPS.encode(encoding), "r.yaml") == parse_recipe(TWO_STEPS, "r.yaml")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("steps:\n- method: structured_pruning\n  amount: 3\n", "line 3: steps.0.amount", "3: "),
        ("steps:\n- method: structured_pruning\n  amount: .nan\n", "line 3: steps.0.amount", "nan"),
        ("steps:\n- method: fine_tuning\n  epochs:\n  - 1\n", "line 4: steps.0.epochs", "integer"),
        ("steps:\n- method: fine_tuning\n  epoch: 1\n", "line 3: steps.0.epoch", "not permitted"),
        ("steps:\n- method: prune\n", "line 2: steps.0.method", "prune"),
        ("name: x\nsteps:\n- amount: 0.5\n", "line 3: steps.0.method", "method"),
        ("steps:\n- structured_pruning\n", "line 2: steps.0", "structured_pruning"),
        ("steps:\n-\n", "line 2: steps.0", "None"),
        ("name: x\nsteps: 5\n", "line 2: steps", "5: "),
        ("name: x\nstep: []\n", "line 2: step", "not permitted"),
        ("name: x\nfine_tuning: {}\n", "line 2: fine_tuning", "not permitted"),
        ('name: ""\n', "line 1: name", "at least 1"),
        ("steps:\n" + "- method: fine_tuning\n" * 51, "line 2: steps", "at most 50"),
        (
            '{\n\t"steps": [\n\t\t{"method": "fine_tuning",\n\t\t"epochs": 0}]}',
            "line 4: steps.0.epochs",
            "0: ",
        ),
    ],
)
def test_every_problem_has_its_line_and_field(text: str, where: str, what: str) -> None:
    error = refusal(text)
    assert error.where == f"r.yaml, {where}"
    assert what in error.what
    assert error.fix


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: b: c", "r.yaml, line 1", "mapping values"),
        (
            "steps:\n- method: fine_tuning\n  epochs: 1\n  epochs: 2\n",
            "r.yaml, line 4",
            "'epochs' is there twice",
        ),
        ('{"name": "x",\n"name": "y"}', "r.yaml, line 2", "'name' is there twice"),
        ("name: &a x\nsteps: *a\n", "r.yaml, line 2", "aliases"),
        ("name: !!python/object/apply:os.system [x]", "r.yaml, line 1", "constructor"),
        ("name: x\n---\nname: y\n", "r.yaml, line 2", "another document"),
        (b"name: \xff", "r.yaml", "invalid start byte"),
        ("name: 2020-99-99", "r.yaml", "month"),
        ("", "r.yaml", "nothing"),
        ("- 1\n", "r.yaml", "list"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(text: str | bytes, where: str, what: str) -> None:
    error = refusal(text)
    assert error.where == where
    assert what in error.what


def test_further_problems_are_counted() -> None:
    assert "(2 more" in refusal("steps:\n- method: fine_tuning\n  a: 1\n  b: 1\n  c: 1\n").what


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal(f"name: {'x' * 10_000}").what) < 200


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)),
        "[" * MAX_BYTES,
        "- " * (MAX_BYTES // 2),
        "{" * MAX_BYTES,
        '{"a":' * (MAX_BYTES // 5),
        "x: 1\n" * (MAX_BYTES // 5),
    ],
)
def test_bombs_are_refused_within_seconds(text: str) -> None:
    started = time.process_time()
    refusal(text)
    assert time.process_time() - started < 5


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing: reading it would end the test run
    with pytest.raises(RecipeRefused, match="65,536 bytes"):
        read_recipe(path)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeRefused, match="cannot be read"):
            read_recipe(path)


class Fake(Method):
    def apply(self, model: Candidate, context: Context) -> Candidate:  # noqa: ARG002
        return model


def step(family: Family) -> Method:
    kind: type[Fake] = type(family, (Fake,), {"family": family, "__module__": f"workers.methods.{family}"})
    return kind()


def allowed(*families: Family) -> bool:
    try:
        recipes.Recipe.model_construct(steps=tuple(map(step, families)))._legal_order()  # type: ignore[operator]
    except ValueError:
        return False
    return True


def test_the_order_has_a_place_for_every_family() -> None:
    assert set(ORDER) == set(get_args(Family))


@pytest.mark.parametrize(
    ("families", "legal"),
    [
        (("distillation", "pruning", "low_rank", "pruning", "quantization"), True),
        (("pruning", "fine_tuning", "early_exit"), True),
        (("early_exit", "quantization"), True),
        (("early_exit", "fine_tuning"), False),
        (("early_exit", "early_exit"), False),
        (("fine_tuning", "fine_tuning"), True),
        (("low_rank", "pruning"), True),
        (("early_exit", "distillation"), False),
        (("early_exit", "pruning"), False),
        (("early_exit", "low_rank"), False),
        (("quantization", "pruning"), False),
        (("quantization", "early_exit"), False),
        (("quantization", "fine_tuning"), False),
        (("quantization", "distillation"), False),
        (("pruning", "quantization", "fine_tuning"), False),
        (("early_exit", "fine_tuning", "pruning"), False),
    ],
)
def test_legal_order(families: tuple[Family, ...], legal: bool) -> None:
    assert allowed(*families) is legal


def test_a_wrong_order_is_told_with_the_line_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    order = {**ORDER, "fine_tuning": 3}
    monkeypatch.setattr(recipes, "ORDER", order)
    error = refusal("steps:\n- method: fine_tuning\n- method: structured_pruning\n")
    assert error.where == "r.yaml, line 3: steps.1"
    assert "step 2 (structured_pruning) cannot come after fine_tuning" in error.what
    assert error.fix == "Reorder the steps."


@pytest.mark.parametrize("mode", ["qat", "dynamic"])
def test_what_exits_cannot_take_is_refused_with_the_reason(mode: str) -> None:
    step = f"- method: quantization\n  mode: {mode}\n"
    error = refusal(f"steps:\n- method: early_exit\n{step}")
    assert error.where == "r.yaml, line 3: steps.1"
    assert f"mode {mode}" in error.what
    assert "use mode: static" in error.what
    assert parse_recipe(f"steps:\n{step}", "r.yaml").steps


def test_a_recipe_is_a_value() -> None:
    assert parse_recipe(TWO_STEPS, "a") == parse_recipe(TWO_STEPS, "b")
    assert Recipe() != parse_recipe(TWO_STEPS, "a")
