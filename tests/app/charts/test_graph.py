"""A model's blocks as Graphviz takes them."""

import re

from app.charts.graph import graph_dot


def block(name: str, inputs: list[int], **more: object) -> dict[str, object]:
    return {"name": name, "layers": {"Conv2d": 2}, "parameters": 9408, "inputs": inputs, "repeats": 1} | more


def test_boxes_and_edges() -> None:
    lines = graph_dot([block("stem", []), block("layer1", [0], repeats=3), block("add", [0, 1])]).splitlines()
    assert r'1 [label="3 × layer1\n2 Conv2d\n9.4 k parameters"]' in lines
    assert {"0 -> 1", "0 -> 2", "1 -> 2"} <= set(lines)


def test_a_name_from_a_file_stays_text() -> None:
    r"""Quotes and backslashes are the only letters that could end a label."""
    hostile = 'a" URL="javascript:x" b\\" ] ; evil [label="'
    (line,) = [line for line in graph_dot([block(hostile, [])]).splitlines() if line.startswith("0 [")]
    assert re.fullmatch(r'0 \[label="(?:[^"\\]|\\.)*"\]', line)
