"""What the form does with a recipe: presets, legal places, amounts. Recipes here are plain, as in a file."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from workers.catalog import METHODS
from workers.errors import ParedownError
from workers.recipe import Recipe, parse_recipe, settings_of, step_id

AMOUNTS = (0.3, 0.5, 0.7)
Plain = dict[str, Any]


def presets() -> dict[str, Plain]:
    """Prune by 30, 50 or 70 %, then train further."""
    return {f"Prune {amount:.0%}, fine-tune".replace("%", " %"): _preset(amount) for amount in AMOUNTS}


def _preset(amount: float) -> Plain:
    steps = [{"method": "structured_pruning", "amount": amount}, {"method": "fine_tuning"}]
    return whole({"name": f"Pruned by {amount:.0%}".replace("%", " %"), "steps": steps})


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


def has_amount(recipe: Mapping[str, Any]) -> bool:
    return any("amount" in step for step in recipe["steps"])


def with_amount(recipe: Mapping[str, Any], amount: float) -> Plain:
    """The same recipe with another amount in the first step that has one; the name tells it."""
    changed = copy.deepcopy(dict(recipe))
    step = next(step for step in changed["steps"] if "amount" in step)
    step["amount"] = amount
    changed["name"] = f"{recipe['name']} · {amount:.0%}".replace("%", " %")
    return changed


def chips(recipe: Mapping[str, Any]) -> list[str]:
    """Each step in two or three words: `Structured pruning 50 %`."""
    return [_chip(step) for step in recipe.get("steps", ())]


def _chip(step: Mapping[str, Any]) -> str:
    method = METHODS.get(step["method"])
    title = step["method"] if method is None else method.title
    if "amount" in step:
        return f"{title} {step['amount']:.0%}".replace("%", " %")
    return title


def refusal(recipe: Mapping[str, Any]) -> dict[str, str] | None:
    """What an error box draws; None for a recipe that can be carried out."""
    try:
        whole(recipe)
    except ParedownError as error:
        return {"where": error.where, "what": error.what, "fix": error.fix}
    return None
