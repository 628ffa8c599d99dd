"""Symbolic sizes as a `.pt2` writes them, e.g. ``Mul(Integer(4), Symbol('s77', integer=True))``.

`torch.export.load` hands them to sympy, which evaluates Python. Paredown never evaluates them; it refuses
those that are more than arithmetic over sizes, so that no harmful file is kept or passed on.
"""

import ast
import re
from typing import Any

from workers.errors import ModelRefused

MAX_LENGTH = 10_000
_SYMBOL = re.compile(r"[a-z]{1,8}\d+")
_FUNCTIONS = frozenset(
    """Symbol Integer Rational Float Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv IntTrueDiv
    FloatTrueDiv ToFloat TruncToInt Eq Ne Equality Unequality StrictLessThan LessThan StrictGreaterThan
    GreaterThan Ge Gt Le Lt And Or Not Abs int_oo oo""".split()
)
_NODES = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop)
_PARTS = (*_NODES, ast.cmpop, ast.boolop, ast.Load, ast.keyword)


def check_expressions(written: Any) -> None:
    """Walk parsed JSON; raise ModelRefused at the first expression that is not arithmetic over sizes."""
    waiting = [written]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
            if "expr_str" in item and not is_arithmetic(item["expr_str"]):
                shown = str(item["expr_str"])[:120]
                raise ModelRefused(
                    "models/model.json",
                    f"holds the expression {shown!r}, which is not arithmetic over sizes.",
                    "Upload only files that torch.export.save() wrote.",
                )


def is_arithmetic(expression: object) -> bool:
    """True when the text is made of numbers, size symbols and the functions above, and of nothing else."""
    if not isinstance(expression, str) or len(expression) > MAX_LENGTH:
        return False
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_harmless(node) for node in ast.walk(tree))


def _harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return bool(_SYMBOL.fullmatch(node.value))
        return isinstance(node.value, int | float)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or bool(_SYMBOL.fullmatch(node.id))
    return isinstance(node, _PARTS)
