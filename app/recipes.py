"""What the form does with a recipe: presets, legal places, amounts. Recipes here are plain, as in a file."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from workers.catalog import METHODS
from workers.errors import ParedownError
from workers.recipe import Recipe, parse_recipe, settings_of, step_id

AMOUNTS = (0.3, 0.5, 0.7)
PRESETS = Path(__file__).with_name("presets.yaml")
Plain = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    about: str
    recipe: Plain


@cache
def presets() -> dict[str, Preset]:
    """By name, in the order of the file. Raises RecipeRefused for one that cannot be carried out."""
    entries = yaml.safe_load(PRESETS.read_text(encoding="utf-8"))
    return {entry["name"]: Preset(entry.pop("about"), whole(entry)) for entry in entries}


def whole(recipe: Mapping[str, Any]) -> Plain:
    """With every setting spelled out. Raises RecipeRefused."""
    read = parse_recipe(json.dumps(recipe), "recipe")
    steps = [{"method": step_id(step), **settings_of(step)} for step in read.steps]
    return {"name": read.name, "steps": steps}


def is_legal(steps: Sequence[Mapping[str, Any]]) -> bool:
    try:
        Recipe.model_validate({"steps": steps})
    except ValueError:
        return False
    return True


def moved(steps: Sequence[Plain], index: int, by: int) -> list[Plain] | None:
    """The steps with one of them moved; None where that is no legal order."""
    target = index + by
    if not 0 <= target < len(steps):
        return None
    order = list(steps)
    order.insert(target, order.pop(index))
    return order if is_legal(order) else None


def added(steps: Sequence[Plain], method: str) -> list[Plain] | None:
    """The steps with one more, as late as is legal; None where it may stand nowhere."""
    step = {"method": method, **settings_of(METHODS[method]())}
    for place in range(len(steps), -1, -1):
        order = [*steps[:place], step, *steps[place:]]
        if is_legal(order):
            return order
    return None


def trains(recipe: Mapping[str, Any]) -> bool:
    """True where a step passes over the training samples."""
    return any(step.trains for step in Recipe.model_validate(recipe).steps)


def needs_graph(recipe: Mapping[str, Any]) -> bool:
    """True where an ONNX file is not enough for a step."""
    return any(step.needs_graph for step in Recipe.model_validate(recipe).steps)


def has_amount(recipe: Mapping[str, Any]) -> bool:
    return any(_amount(step) for step in recipe["steps"])


def _amount(step: Mapping[str, Any]) -> float | None:
    """None where another one changes nothing, as beside an N:M pattern, or more than the amount.

    An amount of 0 prunes single layers alone, and another one would prune all.
    """
    return None if _pattern(step) else step.get("amount") or None


def _pattern(step: Mapping[str, Any]) -> str | None:
    found = step.get("pattern", "none")
    return None if found == "none" else str(found)


def with_amount(recipe: Mapping[str, Any], amount: float) -> Plain:
    """The same recipe with another amount in the first step that has one; the name tells it."""
    changed = copy.deepcopy(dict(recipe))
    step = next(step for step in changed["steps"] if _amount(step))
    step["amount"] = amount
    changed["name"] = f"{recipe['name']} · {amount:.0%}".replace("%", " %")
    return changed


def with_layer(recipe: Mapping[str, Any], layer: str, share: float | None) -> Plain | None:
    """The recipe with one layer pruned by that share, or, for None, left in float where others get integers.

    The step is added where there is none; a new one prunes nothing else, and exactly that share. None where
    no such step may be added.
    """
    method = "quantization" if share is None else "structured_pruning"
    steps = copy.deepcopy(list(recipe["steps"]))
    step = next((step for step in steps if step["method"] == method), None)
    if step is None:
        order = added(steps, method)
        if order is None:
            return None
        steps = order
        step = next(step for step in steps if step["method"] == method)
        if share is not None:
            step |= {"amount": 0.0, "round_to": 1}
    if share is None:
        kept = [name.strip() for name in step.get("keep_in_float", "").split(",") if name.strip()]
        step["keep_in_float"] = ", ".join(dict.fromkeys([*kept, layer]))
    else:
        step["layer_amounts"] = {**step.get("layer_amounts", {}), layer: share}
    return {"name": recipe["name"], "steps": steps}


def chips(recipe: Mapping[str, Any]) -> list[str]:
    """Each step in two or three words: `Structured pruning 50 %`."""
    return [_chip(step) for step in recipe.get("steps", ())]


def _chip(step: Mapping[str, Any]) -> str:
    method = METHODS.get(step["method"])
    title = step["method"] if method is None else method.title
    single = step.get("layer_amounts") or {}
    if single and not step.get("amount"):
        return f"{title}, {len(single)} layer{'s' * (len(single) != 1)}"
    if pattern := _pattern(step):
        return f"{title} {pattern}"
    if step.get("amount") is not None:
        return f"{title} {step['amount']:.0%}".replace("%", " %")
    return title


def refusal(recipe: Mapping[str, Any]) -> dict[str, str] | None:
    """What an error box draws; None for a recipe that can be carried out."""
    try:
        whole(recipe)
    except ParedownError as error:
        return {"where": error.where, "what": error.what, "fix": error.fix}
    return None
