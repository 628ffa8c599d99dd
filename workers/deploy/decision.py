"""The decision of an exit as ONNX nodes: from its logits to one bool, whether the whole batch leaves.

The same scores as `workers.exits.scores`, and the same rule: sure means greater than the threshold.
"""

import numpy as np
from onnx import NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from workers.exits.scores import Score

#: Axes, and numbers.
ROWS, CLASSES = "exits/rows", "exits/classes"
ONE, TWO, LOG_CLASSES = "exits/one", "exits/two", "exits/log_classes"


def decision_constants(kind: Score, classes: int) -> list[TensorProto]:
    """What the nodes of all exits share."""
    constants = {ROWS: np.array([0])}
    if kind != "patience":
        constants[CLASSES] = np.array([1])
    if kind == "margin":
        constants[TWO] = np.array([2])
    if kind in ("entropy", "patience"):
        constants[ONE] = np.array(1, np.float32)
    if kind == "entropy":
        constants[LOG_CLASSES] = np.log(np.array(classes, np.float32))
    return [from_array(value, name) for name, value in constants.items()]


def decision_nodes(kind: Score, logits: str, number: int) -> list[NodeProto]:
    """From `logits` (N, classes) to `exit_{number}/sure` ()."""
    build = _Builder(f"exit_{number}/")
    if kind == "patience":
        score = _agreement(build, logits, number)
    else:
        scaled = build("Div", [logits, f"exit_{number}_temperature"], "scaled")
        score = {"probability": _probability, "entropy": _entropy, "margin": _margin}[kind](build, scaled)
    # First over the classes, then over the rows: one maximum over both would let a single sure row decide
    # for the whole batch.
    least = build("ReduceMin", [score, ROWS], "least", keepdims=0)
    build("Greater", [least, f"exit_{number}_threshold"], "sure")
    return build.nodes


def _node(operator: str, inputs: list[str], outputs: list[str], attributes: dict[str, int]) -> NodeProto:
    node = helper.make_node(operator, inputs, outputs, name=outputs[0])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


class _Builder:
    """Collects nodes; a node has the name of the first value that it gives."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.nodes = prefix, list[NodeProto]()

    def __call__(self, operator: str, inputs: list[str], *outputs: str, **attributes: int) -> str:
        """Returns the name of the first output."""
        names = [self.prefix + output for output in outputs]
        self.nodes.append(_node(operator, inputs, names, attributes))
        return names[0]


def _probability(build: _Builder, scaled: str) -> str:
    p = build("Softmax", [scaled], "p", axis=1)
    return build("ReduceMax", [p, CLASSES], "score", keepdims=0)


def _entropy(build: _Builder, scaled: str) -> str:
    log_p = build("LogSoftmax", [scaled], "log_p", axis=1)
    p = build("Exp", [log_p], "p")
    summed = build("ReduceSum", [build("Mul", [p, log_p], "terms"), CLASSES], "summed", keepdims=0)
    return build("Add", [build("Div", [summed, LOG_CLASSES], "negative"), ONE], "score")


def _margin(build: _Builder, scaled: str) -> str:
    top = build("TopK", [build("Softmax", [scaled], "p", axis=1), TWO], "top", "places", axis=1)
    first = build("Split", [top], "first", "second", axis=1, num_outputs=2)
    return build("Squeeze", [build("Sub", [first, f"{build.prefix}second"], "margin"), CLASSES], "score")


def _agreement(build: _Builder, logits: str, number: int) -> str:
    answer = build("ArgMax", [logits], "answer", axis=1, keepdims=0)
    before = answer if number == 1 else f"exit_{number - 1}/answer"
    same, one_or_zero = build("Equal", [answer, before], "same"), "score" if number == 1 else "repeated"
    repeated = build("Cast", [same], one_or_zero, to=TensorProto.FLOAT)
    if number == 1:
        return repeated
    return build("Add", [build("Mul", [repeated, f"exit_{number - 1}/score"], "continued"), ONE], "score")
