"""A recipe: an ordered list of steps with their settings; YAML or JSON, the same thing a form edits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import yaml
from pydantic import Field, SerializeAsAny, ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails

from workers.base import Family, Frozen, Method
from workers.catalog import METHODS
from workers.errors import RecipeRefused

EXITS = 2
#: Later families may not be followed by earlier ones; those without a place may stand anywhere before exits,
#: which train the model themselves and are added once. Distil, prune, quantize: "Order of Compression"
#: (arXiv:2403.17447); heads are trained in float before that.
ORDER: dict[Family, int | None] = {
    "distillation": None,
    "fine_tuning": None,
    "pruning": 1,
    "low_rank": 1,
    "early_exit": EXITS,
    "quantization": 3,
}
#: Families of steps that a model leaves with other nodes than it came with.
CHANGING: tuple[Family, ...] = ("pruning", "low_rank", "distillation")
MAX_BYTES = 1 << 16


def _as_step(name: str, method: type[Method]) -> type[Method]:
    """The method as a step of a file: its settings and ``method: <id>``."""
    tag: Any = Literal[name]
    return create_model(method.__name__, __base__=method, __module__=method.__module__, method=(tag, name))


STEPS = {name: _as_step(name, method) for name, method in METHODS.items()}

if TYPE_CHECKING:
    Step = Method
else:
    Step = Annotated[Union[tuple(STEPS.values())], Field(discriminator="method")]  # noqa: UP007


class _WrongOrder(ValueError):
    def __init__(self, index: int, what: str) -> None:
        self.index = index
        super().__init__(what)


class Recipe(Frozen):
    """What is done to a model, in order. No step at all gives the baseline."""

    name: str = Field("Unnamed", min_length=1, max_length=100)
    steps: tuple[SerializeAsAny[Step], ...] = Field((), max_length=50)

    @property
    def promises(self) -> bool:
        """True where half of the validation samples are held out from all steps, see `Method.promises`."""
        return any(step.promises for step in self.steps)

    @model_validator(mode="after")
    def _legal_order(self) -> "Recipe":
        reached: tuple[int, str] = (0, "")
        for index, step in enumerate(self.steps):
            rank = ORDER[step.family]
            if rank is None and reached[0] < EXITS:
                continue
            if rank is None or rank < reached[0] or rank == reached[0] == EXITS:
                why = "prune, factorise and train first, then add exits, then quantize"
            elif any(ORDER[earlier.family] == EXITS for earlier in self.steps[:index]):
                why = step.refuses_exits
            else:
                why = ""
            if why:
                after = f"step {index + 1} ({step_id(step)}) cannot come after {reached[1]}"
                raise _WrongOrder(index, f"{after}; {why}")
            reached = (rank or 0, step_id(step))
        return self


def step_id(step: Method) -> str:
    """The id of the method that a step applies."""
    return type(step).__module__.rpartition(".")[2]


def read_recipe(path: Path) -> Recipe:
    """Parse a recipe file. Raises RecipeRefused with the line and the field."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeRefused(str(path), f"cannot be read ({error.strerror}).", "Give a YAML file.") from error
    return parse_recipe(text, path.name)


def parse_recipe(text: bytes | str, where: str) -> Recipe:
    """`where` names the text in errors. Raises RecipeRefused with the line and the field."""
    if len(text) > MAX_BYTES:
        raise RecipeRefused(where, f"is over {MAX_BYTES:,} bytes long.", "A recipe is a few lines of YAML.")
    try:
        tree, written = _parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise RecipeRefused(
            place, f"cannot be read: {problem}.", "Check indentation, colons and fields."
        ) from error
    if not isinstance(written, dict):
        raise RecipeRefused(
            where,
            f"holds {'nothing' if written is None else type(written).__name__}, not `name:` and `steps:`.",
            "Write `steps:` and below it `- method: structured_pruning`.",
        )
    try:
        return Recipe.model_validate(written)
    except ValidationError as error:
        raise _refusal(error, where, tree) from error


class _Loader(yaml.SafeLoader):
    """Neither aliases, which make a few bytes stand for gigabytes, nor fields that are there twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="a recipe takes no aliases (*)", problem_mark=mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r:.80} is there twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return node


def _parsed(text: bytes | str) -> tuple[yaml.Node | None, Any]:
    """The nodes, which know their lines, and the values. JSON is YAML but for its escapes and its tabs."""
    try:
        written = json.loads(text)
    except (ValueError, RecursionError):
        loader = _Loader(text)
        tree = loader.get_single_node()
        return tree, None if tree is None else loader.construct_document(tree)
    plain = text.decode(json.detect_encoding(text)) if isinstance(text, bytes) else text
    return _Loader(plain.replace("\t", " ")).get_single_node(), written


def write_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with every setting spelled out."""
    steps = [{"method": step_id(step), **settings_of(step)} for step in recipe.steps]
    return yaml.safe_dump({"name": recipe.name, "steps": steps}, sort_keys=False, allow_unicode=True)


def _refusal(error: ValidationError, where: str, tree: yaml.Node | None) -> RecipeRefused:
    """The first problem, with its line; the number of others."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path, what = _path(first), f"{first['msg'].removeprefix('Value error, ')}."
    place = f"{where}, line {_line(tree, path)}: {'.'.join(map(str, path))}"
    if first["type"] != "missing" and not isinstance(first["input"], dict | list | Frozen):
        what = f"{first['input']!r:.80}: {what}"
    if len(problems) > 1:
        what += f" ({len(problems) - 1} more after this one.)"
    return RecipeRefused(place, what, _advice(first))


def _path(problem: ErrorDetails) -> list[int | str]:
    """Where in the file; pydantic puts the tag of a union into the path, and knows no place for an order."""
    wrong = _wrong_order(problem)
    if wrong is not None:
        return ["steps", wrong.index]
    path = [*problem["loc"][:2], *problem["loc"][3:]]
    return [*path, "method"] if problem["type"].startswith("union_tag") else path


def _wrong_order(problem: ErrorDetails) -> _WrongOrder | None:
    error = problem.get("ctx", {}).get("error")
    return error if isinstance(error, _WrongOrder) else None


def _advice(problem: ErrorDetails) -> str:
    kind = problem["type"]
    if kind.startswith("union_tag") or kind == "model_attributes_type":
        return f"A step is `- method: ` and one of {', '.join(METHODS)}, then its settings."
    if kind == "extra_forbidden":
        return "`paredown methods` lists the settings of each method."
    if _wrong_order(problem):
        return "Reorder the steps."
    return "`paredown methods` shows what each setting takes."


def _line(tree: yaml.Node | None, path: list[int | str]) -> int:
    """Line of the deepest part of `path` that the file has."""
    node = tree
    for part in path:
        inner = None
        if isinstance(node, yaml.MappingNode):
            inner = next((value for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inner = node.value[part]
        if inner is None:
            break
        node = inner
    return node.start_mark.line + 1 if node is not None else 1


def settings_of(step: Method) -> dict[str, Any]:
    """The settings alone, as JSON values."""
    written = json.loads(step.model_dump_json(exclude={"method"}))
    return {name: written[name] for name in METHODS[step_id(step)].settings()}
