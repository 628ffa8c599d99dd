"""What every method, measure and runtime must be; a new file is covered without a new test."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import workers
from tests.support.arrays import candidate, context, small_net
from workers.base import Method
from workers.catalog import MEASURES, METHODS, RUNTIMES, found_in
from workers.recipe import ORDER, STEPS, parse_recipe

GOOD = """
from workers.base import Method
class {name}(Method):
    title, family, source = "A", "pruning", "none"
    def apply(self, model, context):
        return model
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An importable empty folder."""
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("made_up")
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        del sys.modules[name]


def write(package: ModuleType, name: str, text: str) -> None:
    (Path(package.__path__[0]) / name).write_text(text)


def test_the_file_name_is_the_id(package: ModuleType) -> None:
    write(package, "second.py", GOOD.format(name="Anything"))
    write(
        package,
        "first.py",
        GOOD.format(name="Other") + "from workers.methods.fine_tuning import FineTuning\n",
    )
    found = found_in(package, Method)  # type: ignore[type-abstract]
    assert list(found) == ["first", "second"]
    assert found["first"].__name__ == "Other"
    with pytest.raises(TypeError):
        found["third"] = Method  # type: ignore[index]


def test_a_broken_file_stops_the_start_with_its_own_error(package: ModuleType) -> None:
    write(package, "good.py", GOOD.format(name="Good"))
    write(package, "broken.py", "import json\n\n1 / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        found_in(package, Method)  # type: ignore[type-abstract]
    last = caught.traceback[-1]
    assert (Path(str(last.path)).name, last.lineno + 1) == ("broken.py", 3)


@pytest.mark.parametrize(
    ("text", "count"), [(GOOD.format(name="One") + GOOD.format(name="Two"), 2), ("x = 1\n", 0)]
)
def test_a_file_with_several_or_no_methods_stops_the_start(
    package: ModuleType, text: str, count: int
) -> None:
    write(package, "file.py", text)
    with pytest.raises(TypeError, match=f"made_up.file defines {count} classes of Method"):
        found_in(package, Method)  # type: ignore[type-abstract]


@pytest.mark.parametrize(
    ("folder", "catalogue"), [("methods", METHODS), ("measures", MEASURES), ("runtimes", RUNTIMES)]
)
def test_every_file_of_a_folder_is_in_its_catalogue(folder: str, catalogue: dict[str, object]) -> None:
    files = (Path(workers.__file__).parent / folder).glob("[!_]*.py")
    assert set(catalogue) == {file.stem for file in files}
    assert catalogue


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_itself(name: str) -> None:
    method = METHODS[name]
    assert method.title
    assert method.source
    assert method.__doc__
    assert method.family in ORDER


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_default_description_and_bounds(name: str) -> None:
    settings = METHODS[name].model_json_schema()["properties"]
    assert settings
    for setting, schema in settings.items():
        assert "default" in schema, setting
        assert len(schema["description"]) > 10, setting
        assert schema["title"], setting
        kinds = schema.get("anyOf", [schema])
        for kind in kinds:
            low, high = (
                {"minimum", "exclusiveMinimum"} & set(kind),
                {"maximum", "exclusiveMaximum"} & set(kind),
            )
            bounded = {"enum", "maxLength", "maxItems", "maxProperties"} & set(kind) or (low and high)
            assert bounded or kind["type"] in ("null", "boolean"), setting


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_the_method_with_its_name(name: str) -> None:
    (step,) = parse_recipe(f"steps: [{{method: {name}}}]", "r").steps
    assert isinstance(step, METHODS[name])
    assert isinstance(step, STEPS[name])
    assert step.model_dump(exclude={"method"}) == METHODS[name]().model_dump()
    json.dumps(step.model_json_schema())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_changes_weights_graph_or_artefact(name: str, tmp_path: Path) -> None:
    """With its default settings, on a small net; and leaves what it was given."""
    before, method = candidate(small_net()), METHODS[name]()
    if "round_to" in type(method).model_fields:
        method = method.model_copy(update={"round_to": 1})
    if "only_faster" in type(method).model_fields:  # nothing makes so small a net faster
        method = method.model_copy(update={"only_faster": False, "rank_by": "ratio"})
    if "epochs" in type(method).model_fields:
        method = method.model_copy(update={"epochs": 2, "batch_size": 16})
    if "keep_faster" in type(method).model_fields:  # on so small a net nothing is faster
        method = method.model_copy(update={"keep_faster": False})
    if "exits" in type(method).model_fields:  # so small a net has no blocks to put them between
        method = method.model_copy(update={"exits": ("_2",)})
    after = method.apply(before, context(tmp_path))
    assert before.graph is not None
    untouched = small_net().state_dict()
    assert all(torch.equal(tensor, untouched[key]) for key, tensor in before.graph.state_dict().items())
    assert after.spec.preprocessing == before.spec.preprocessing
    if after.graph is None:
        assert after.onnx is not None
        return
    weights = after.graph.state_dict()
    assert weights.keys() != untouched.keys() or any(
        weights[key].shape != tensor.shape or not torch.equal(weights[key], tensor)
        for key, tensor in untouched.items()
    )


def test_a_method_that_does_nothing_is_none(package: ModuleType) -> None:
    folder = Path(package.__path__[0])
    (folder / "idle.py").write_text(GOOD.format(name="Idle").partition("    def apply")[0])
    with pytest.raises(TypeError, match="defines 0 classes"):
        found_in(package, Method)  # type: ignore[type-abstract]


def test_the_methods_own_settings_come_first_and_none_is_lost() -> None:
    assert METHODS["structured_pruning"].settings()[:2] == ("amount", "amount_of")
    assert METHODS["quantization"].settings()[0] == "mode"
    assert METHODS["early_exit"].settings()[:2] == ("exits", "max_drop")
    assert METHODS["fine_tuning"].settings()[:3] == ("label_smoothing", "epochs", "learning_rate")
    for method in METHODS.values():
        assert sorted(method.settings()) == sorted(method.model_fields)
