"""Programs that do what no model does. Each is refused before anything of it runs."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.graph.conftest import Inspect, Refused, Remake
from workers.graph.importing import import_model


def _nodes(program: Any) -> list[Any]:
    return program["graph_module"]["graph"]["nodes"]  # type: ignore[no-any-return]


def _target(name: str) -> Callable[[Any], None]:
    return lambda program: _nodes(program)[0].update(target=name)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.set_.source_Storage_storage_offset",
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.mul.left_t",
        "torch.ops.aten.add.str",
        "torch.ops.aten.mul.out",
        "torch.ops.aten.relu.__class__",
        "torch.ops.higher_order.while_loop",
        "torch.ops.higher_order.cond",
        "torch.ops.profiler._record_function_enter.default",
        "torch.ops.prims.convert_element_type.default",
        "_operator.pow",
        "_operator.attrgetter",
        "os.system",
        "builtins.eval",
        "",
    ],
)
def test_operators_that_are_not_listed(target: str, remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake(edit=_target(target))
    with refused("not one that Paredown knows to be safe"):
        look(path)


def _argument(value: Any) -> Callable[[Any], None]:
    return lambda program: _nodes(program)[0]["inputs"][0].update(arg=value)


@pytest.mark.parametrize(
    "argument",
    [
        {"as_operator": "os.system"},
        {"as_graph": {"name": "x", "graph": {}}},
        {"as_custom_obj": {"name": "x", "class_fqn": "y"}},
        {"as_complex": {"real": 1, "imag": 1}},
        {"as_tensor": {"name": "nowhere"}},
        {"as_int": "1"},
        {"as_int": True},
        {"as_ints": [1, None]},
        {"as_scalar_type": 99},
        {},
        [],
        None,
    ],
)
def test_malformed_arguments(argument: Any, remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake(edit=_argument(argument))
    with refused("not a well-formed program"):
        look(path)


def test_an_argument_that_the_operator_does_not_have(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake(edit=lambda program: _nodes(program)[0]["inputs"][0].update(name="x = __import__('os')"))
    with refused("takes no argument"):
        look(path)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('x')",
        "().__class__",
        "s0.subs",
        "Symbol('x y')",
        "Integer(9)(1)",
        "[x for x in (1,)]",
        "lambda: 1",
        "open('x')",
        "Function('f')(1)",
        "f'{1}'",
        "(" * 5000,
        "-" * 9000 + "1",
        "1+" * 4900 + "1",
        "x" * 20_000,
        "s0 if s0 else s1",
        "\x00",
        17,
        None,
    ],
)
def test_expressions(expression: Any, remake: Remake, look: Inspect, refused: Refused) -> None:
    def edit(program: Any) -> None:
        program["range_constraints"]["hidden"] = {"as_expr": {"expr_str": expression}}

    path = remake(edit=edit)
    with refused("not arithmetic over sizes"):
        look(path)


def test_a_million_nodes(remake: Remake, look: Inspect, refused: Refused) -> None:
    node = {"target": "t", "inputs": [], "outputs": []}
    path = remake(edit=lambda program: _nodes(program).extend([node] * 100_000))
    with refused("operators; 10,000 are allowed"):
        look(path)
    path = remake(edit=lambda program: _nodes(program).extend([node] * 1_000_000))
    with refused("bytes long"):
        look(path)


def _insert(program: Any, nodes: list[Any], instead_of: str = "relu") -> None:
    """Before everything else; the last one's output is `grown` and is read instead of that value."""
    everything = _nodes(program)
    place = next(index for index, node in enumerate(everything) if node["name"] == instead_of) + 1
    text = json.dumps(everything[place:]).replace(f'"name": "{instead_of}"', '"name": "grown"')
    everything[place:] = [*nodes, *json.loads(text)]


def _call(target: str, inputs: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    return {
        "target": target,
        "inputs": [{"name": name, "arg": arg, "kind": 1} for name, arg in inputs.items()],
        "outputs": [output],
        "metadata": {},
        "name": "inserted",
    }


def test_integers_that_blow_up(remake: Remake, look: Inspect, refused: Refused) -> None:
    """Sixty squarings of 2 would be a number of 2^60 bits."""
    nodes = [
        _call(
            "torch.ops.aten.sym_size.int",
            {"self": {"as_tensor": {"name": "relu"}}, "dim": {"as_int": 0}},
            {"as_sym_int": {"as_name": "n0"}},
        )
    ]
    for index in range(60):
        value = {"as_sym_int": {"as_name": f"n{index}"}}
        output = {"as_sym_int": {"as_name": f"n{index + 1}"}}
        nodes.append(_call("_operator.mul", {"a": value, "b": value}, output))
    nodes.append(
        _call(
            "torch.ops.aten.mul.Tensor",
            {"self": {"as_tensor": {"name": "relu"}}, "other": {"as_sym_int": {"as_name": "n60"}}},
            {"as_tensor": {"name": "grown"}},
        )
    )
    path = remake(edit=lambda program: _insert(program, nodes))
    with refused("a size of more than 62 bits"):
        look(path)


@pytest.mark.parametrize("factor", [100_000, 10**9])
def test_enormous_intermediate_tensors(factor: int, remake: Remake, look: Inspect, refused: Refused) -> None:
    repeat = _call(
        "torch.ops.aten.repeat.default",
        {"self": {"as_tensor": {"name": "relu"}}, "repeats": {"as_ints": [1, 1, factor, 10]}},
        {"as_tensor": {"name": "grown"}},
    )
    path = remake(edit=lambda program: _insert(program, [repeat]))
    tracemalloc.start()
    with refused(r"computes a tensor of the shape \[2, 4, \d+, 60\]"):
        look(path)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_enormous_tensors_that_nobody_reads(remake: Remake, look: Inspect, refused: Refused) -> None:
    """An in-place call is kept for its effect, so it would run; export alone would drop it."""
    full = _call(
        "torch.ops.aten.full.default",
        {"size": {"as_ints": [1 << 16, 1 << 16]}, "fill_value": {"as_int": 1}},
        {"as_tensor": {"name": "huge"}},
    )
    zero = _call(
        "torch.ops.aten.zero_.default",
        {"self": {"as_tensor": {"name": "huge"}}},
        {"as_tensor": {"name": "z"}},
    )
    path = remake(edit=lambda program: _nodes(program).extend([full, zero]))
    with refused("computes a tensor of the shape"):
        look(path)


def _interface(edit: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda program: edit(program["graph_module"])


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda m: m["signature"]["input_specs"].pop(), "takes 0 inputs"),
        (lambda m: m["signature"]["input_specs"].append(m["signature"]["input_specs"][-1]), "takes 2 inputs"),
        (
            lambda m: m["signature"]["output_specs"].append(m["signature"]["output_specs"][-1]),
            "returns 2 values",
        ),
        (lambda m: m["signature"].update(output_specs=[]), "returns 0 values"),
        (
            lambda m: m["signature"]["input_specs"].insert(0, {"custom_obj": {}}),
            "input of the kind 'custom_obj'",
        ),
        (lambda m: m["graph"]["tensor_values"]["x"]["sizes"].pop(), "takes an input of the shape"),
        (lambda m: m["graph"]["tensor_values"]["x"]["sizes"][2].update(as_int=9999), "fixed H and W"),
        (lambda m: m["graph"]["tensor_values"]["x"]["sizes"][1].update(as_int=4), "C = 1 or 3"),
        (lambda m: m["graph"]["tensor_values"]["x"].update(dtype=5), "takes an input of torch.int64"),
        (lambda m: m["graph"].update(tensor_values={}), "not a well-formed program"),
    ],
)
def test_inputs_and_outputs(
    edit: Callable[[Any], None], what: str, remake: Remake, look: Inspect, refused: Refused
) -> None:
    path = remake(edit=_interface(edit))
    with refused(what):
        look(path)


class _Reshaped(torch.nn.Module):
    def __init__(self, classes: int, view: tuple[int, ...] | None) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, classes)
        self.view = view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x.mean((2, 3)))
        return x if self.view is None else x.reshape(self.view)


@pytest.mark.parametrize(
    ("classes", "view", "what"),
    [
        (1, None, r"returns \[.*, 1\], not logits"),
        (4, (-1, 2, 2), "not logits"),
        (4, (-1,), "not logits"),
        (4, (-1, 2), "for 3 pictures, not logits"),
    ],
)
def test_outputs_that_are_no_logits(
    classes: int, view: tuple[int, ...] | None, what: str, export: Any, look: Inspect, refused: Refused
) -> None:
    path = export(_Reshaped(classes, view).eval())
    with refused(what):
        look(path)


def test_a_fixed_batch_is_said(export: Any, look: Inspect, refused: Refused) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(x.shape[0], 3, 256).mean(2)

    path = export(Fixed(), dynamic=False)
    with refused("only takes batches of 2"):
        look(path)


def test_a_fixed_batch_that_does_not_matter_is_taken(export: Any, look: Inspect) -> None:
    assert look(export(_Reshaped(4, None).eval(), dynamic=False))["spec"]["classes"] == 4


def test_dynamic_height(tmp_path: Path, look: Inspect, refused: Refused) -> None:
    shapes = ({0: torch.export.Dim("N"), 2: torch.export.Dim("H")},)
    program = torch.export.export(_Reshaped(4, None).eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    with refused("fixed H and W"):
        look(tmp_path / "m.pt2")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_inputs_of_another_precision(
    dtype: torch.dtype, export: Any, look: Inspect, refused: Refused
) -> None:
    path = export(_Reshaped(4, None).to(dtype).eval(), dtype=dtype)
    with refused(f"takes an input of {dtype}"):
        look(path)


@pytest.mark.slow
def test_a_program_that_needs_much_memory_dies_alone(export: Any, tmp_path: Path, refused: Refused) -> None:
    """Every tensor is below the limit of one tensor; all at once they are above that of the process."""

    class Hoarder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            many = [x.repeat(1, 1, 400, 400) + float(index) for index in range(8)]
            return torch.stack([part.mean((2, 3)) for part in many]).sum(0)

    path = export(Hoarder())
    target = tmp_path / "kept"
    target.mkdir()
    with refused("cannot be carried out|ended its own check early|was not checked within"):
        import_model(path, target)
    assert [*target.iterdir()] == []
