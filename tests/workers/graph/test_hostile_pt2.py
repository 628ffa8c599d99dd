"""Archives that lie, grow or do what no model does. Each is refused before anything of it runs."""

import contextlib
import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workers.graph.conftest import CONSTANTS, MODEL, WEIGHTS, Refused, Remake
from workers.errors import ModelRefused
from workers.graph.archive import read_archive
from workers.graph.importing import import_model
from workers.graph.inspection import inspect
from workers.graph.program import as_written

RequestFor = Callable[..., dict[str, Any]]
Inspect = Callable[[Path], dict[str, Any]]


@pytest.fixture
def look(request_for: RequestFor) -> Inspect:
    return lambda path: inspect(request_for(path), lambda _: None)


def test_the_honest_one_is_taken(remake: Remake, look: Inspect) -> None:
    assert look(remake())["spec"]["classes"] == 3


@pytest.mark.parametrize(
    ("member", "what"),
    [
        ("../../evil", "does not belong"),
        ("/etc/evil", "does not belong"),
        ("data/weights/../../evil", "does not belong"),
        ("data/weights/weight_0.so", "does not belong"),
        ("data/constants/custom_obj_0", "does not belong"),
        ("data/aotinductor/model/wrapper.so", "does not belong"),
        ("data/executorch/model.pte", "does not belong"),
        ("models/other.json", "does not belong"),
        ("extra/../../evil", "does not belong"),
        ("data/weights/model.pt", "as a pickle"),
        ("data/constants/model.pt", "as a pickle"),
    ],
)
def test_members_that_no_program_has(
    member: str, what: str, remake: Remake, look: Inspect, refused: Refused
) -> None:
    path = remake({member: b"x"})
    with refused(what):
        look(path)


def test_a_second_top_folder(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/extra/more", b"x")
    with refused("does not belong"):
        look(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_twice(remake: Remake, honest: dict[str, bytes], look: Inspect, refused: Refused) -> None:
    path = remake()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"archive/{MODEL}", honest[MODEL])
    with refused("twice"):
        look(path)


def test_compressed_bomb(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({"data/weights/weight_0": b"\0" * 200_000_000}, method=zipfile.ZIP_DEFLATED)
    with refused("more than the file can hold"):
        look(path)
    path = remake(method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"x" * 60_000  # makes room for what the others save
    with refused("compressed member"):
        look(path)


def test_overlapping_members(remake: Remake, look: Inspect, refused: Refused) -> None:
    """A thousand entries that share the bytes of one: the sum is more than the file."""
    path = remake({"data/weights/weight_0": b"\0" * 100_000})
    with zipfile.ZipFile(path) as file:
        first = file.getinfo("archive/data/weights/weight_0")
    with zipfile.ZipFile(path, "a") as file:
        for index in range(1000):
            twin = zipfile.ZipInfo(f"archive/data/weights/weight_{index + 100}")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            file.filelist.append(twin)
        file._didModify = True  # type: ignore[attr-defined]
    with refused("more than the file can hold"):
        look(path)


def test_huge_declared_size_of_an_empty_record(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    data = bytearray(path.read_bytes())
    end = data.rindex(b"archive/data/weights/weight_0") - 46  # in the central directory
    data[end + 24 : end + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    with refused("more than the file can hold"):
        look(path)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_cut_off(keep: float, remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with refused("damaged or cut off"):
        look(path)


def test_flipped_weight_bytes(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake()
    data = bytearray(path.read_bytes())
    place = data.index(b"weight_0") + 40
    data[place : place + 8] = b"\xff" * 8
    path.write_bytes(data)
    with refused("damaged or cut off"):
        look(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sizes": [{"as_int": 10**9}] * 4}, "but the file holds 108 numbers"),
        ({"sizes": [{"as_int": -4}, {"as_int": 3}, {"as_int": 3}, {"as_int": 3}]}, "a size of -4"),
        ({"strides": [{"as_int": 10**6}] * 4}, "but the file holds 108 numbers"),
        ({"strides": [{"as_int": 0}] * 4, "sizes": [{"as_int": 1000}] * 4}, "but the file holds"),
        ({"strides": [{"as_int": -1}] * 4}, "a size of -1"),
        ({"storage_offset": {"as_int": 10**6}}, "but the file holds 108 numbers"),
        ({"sizes": [{"as_int": 10**4000}] * 4}, "a size of"),
        ({"sizes": [{"as_int": 1}] * 100_000, "strides": [{"as_int": 1}] * 100_000}, "has the shape"),
        ({"sizes": [{"as_int": True}] * 4}, "a size of True"),
        ({"dtype": 9}, "number format 9"),
        ({"dtype": 8}, "but the file holds 54 numbers"),
        ({"sizes": None}, "not a well-formed"),
    ],
)
def test_weights_that_reach_outside_their_record(
    change: dict[str, Any], what: str, remake: Remake, look: Inspect, refused: Refused
) -> None:
    path = remake(edit=lambda t: t["config"]["conv.weight"]["tensor_meta"].update(change), of=WEIGHTS)
    with refused(what):
        look(path)


def test_many_copies_of_one_large_record(remake: Remake, look: Inspect, refused: Refused) -> None:
    def copy(table: Any) -> None:
        for index in range(3000):
            entry = json.loads(json.dumps(table["config"]["conv.weight"]))
            entry["tensor_meta"]["sizes"] = [{"as_int": 1_000_000 - index}]
            entry["tensor_meta"]["strides"] = [{"as_int": 1}]
            table["config"][f"copy{index}"] = entry

    path = remake({"data/weights/weight_0": b"\0" * 4_000_000}, edit=copy, of=WEIGHTS)
    with refused("bytes of weights out of"):
        look(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_not_finite(
    value: float, dtype: torch.dtype, remake: Remake, look: Inspect, refused: Refused
) -> None:
    weight = torch.ones(4, 3, 3, 3, dtype=dtype)
    weight[1, 1] = value
    raw = weight.view(torch.uint8).numpy().tobytes()
    number = {torch.float16: 6, torch.float32: 7, torch.float64: 8, torch.bfloat16: 13}[dtype]
    path = remake(
        {"data/weights/weight_0": raw},
        edit=lambda t: t["config"]["conv.weight"]["tensor_meta"].update(dtype=number),
        of=WEIGHTS,
    )
    with refused("9 NaN or infinite weights"):
        look(path)


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


@pytest.mark.parametrize("name", ["a b", "a\nb", "a'", 'a"', "a;b", "a..b", ".a", "", "ä", "a" * 600, "a(b)"])
def test_parameter_names(name: str, remake: Remake, look: Inspect, refused: Refused) -> None:
    def rename(table: Any) -> None:
        table["config"][name] = table["config"].pop("conv.weight")

    path = remake(edit=rename, of=WEIGHTS)
    with refused("has a parameter named"):
        look(path)


@pytest.fixture
def renamed(remake: Remake, honest: dict[str, bytes]) -> Callable[[str], Path]:
    """The archive with `fc.bias` under another name."""

    def rename(name: str) -> Path:
        weights, program = json.loads(honest[WEIGHTS]), json.loads(honest[MODEL])
        weights["config"][name] = weights["config"].pop("fc.bias")
        for spec in program["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "fc.bias":
                spec["parameter"]["parameter_name"] = name
        return remake({WEIGHTS: json.dumps(weights).encode(), MODEL: json.dumps(program).encode()})

    return rename


@pytest.mark.parametrize(
    "name", ["__class__", "forward", "graph", "code", "class", "import.x", "state_dict.0"]
)
def test_names_of_a_modules_own_attributes(name: str, renamed: Callable[[str], Path]) -> None:
    """They land beside the attribute, never on it."""
    module = as_written(read_archive(renamed(name)))
    assert type(module).__mro__[1] is torch.fx.GraphModule
    assert module(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert f"{name.split('.')[0]}_" in {key.split(".")[0] for key in module.state_dict()}


@pytest.mark.parametrize("name", ["_parameters", "_modules.x", "training", "conv.weight.x"])
def test_names_where_something_stands(
    name: str, renamed: Callable[[str], Path], look: Inspect, refused: Refused
) -> None:
    path = renamed(name)
    with refused("is there twice|lies inside a tensor"):
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


def test_deep_nesting(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({MODEL: b"[" * 5_000_000})
    with refused("not a well-formed"):
        look(path)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 8}'])
def test_programs_that_are_none(content: bytes, remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({MODEL: content})
    with refused("well-formed"):
        look(path)


def test_another_format(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake(edit=lambda program: program["schema_version"].update(major=5))
    with refused("format 5, not 8"):
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


def test_random_bytes_never_do_more_than_be_refused(remake: Remake, look: Inspect) -> None:
    data = remake().read_bytes()
    path = remake(name="fuzzed.pt2")

    @settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck], database=None)
    @given(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=40))
    def fuzz(place: int, noise: bytes) -> None:
        path.write_bytes(data[:place] + noise + data[place + len(noise) :])
        start = time.monotonic()
        with contextlib.suppress(ModelRefused):
            look(path)
        assert time.monotonic() - start < 30

    fuzz()


def test_not_an_archive(tmp_path: Path, look: Inspect, refused: Refused) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("cat/0.png", b"x")
    (tmp_path / "m.pt2").write_bytes(buffer.getvalue())
    with refused("is a zip, but not a model"):
        look(tmp_path / "m.pt2")


def test_constants_are_checked_too(remake: Remake, look: Inspect, refused: Refused) -> None:
    path = remake({CONSTANTS: None})
    with refused("has no table of its constants"):
        look(path)
