"""A model's blocks as a drawing, in the language of Graphviz."""

from collections.abc import Mapping, Sequence
from typing import Any

from app import numbers
from app.charts.theme import NEUTRAL

#: Dark text on a light box can be read on both backgrounds.
LOOK = (
    'bgcolor="transparent" nodesep=0.25 ranksep=0.3 '
    'node [shape=box style="rounded,filled" fillcolor="#DCE9F2" color="#0072B2" fontcolor="#1B1F24" '
    'fontname="sans-serif" fontsize=11 margin="0.15,0.06"] '
    f'edge [color="{NEUTRAL}" arrowsize=0.6]'
)
KINDS = 4


def graph_dot(blocks: Sequence[Mapping[str, Any]]) -> str:
    """blocks: from `workers/graph/blocks.py`; what a user's file calls its layers is only ever text."""
    boxes = [f"{place} [label={_quoted(_label(block))}]" for place, block in enumerate(blocks)]
    edges = [f"{source} -> {place}" for place, block in enumerate(blocks) for source in block["inputs"]]
    return "\n".join([f"digraph {{ {LOOK}", *boxes, *edges, "}"])


def _label(block: Mapping[str, Any]) -> str:
    times = f"{block['repeats']} × " if block["repeats"] > 1 else ""
    kinds = sorted(block["layers"].items(), key=lambda item: -item[1])
    told = [kind if count == 1 else f"{count} {kind}" for kind, count in kinds[:KINDS]]
    lines = [f"{times}{block['name']}".strip(), ", ".join(told) + (" …" if len(kinds) > KINDS else "")]
    if block["parameters"]:
        lines.append(f"{numbers.count(block['parameters'])} parameters")
    return "\n".join(line for line in lines if line)


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\n", "\\n") + '"'
