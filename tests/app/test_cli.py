"""`paredown` as a user calls it: a process, files, an exit code."""

import getpass
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from app.cli import _sentence
from tests.app.conftest import RECIPE, Paredown
from workers.catalog import METHODS, RUNTIMES

EXITS = """\
steps:
- method: early_exit
  exits: 2
  epochs: 1
  head_epochs: 1
  batch_size: 32
  max_drop: 20
  guarantee: 0.9
"""
ROOT = Path(__file__).parents[2]
Sources = list[str | Path]


@pytest.fixture(scope="module")
def report(done: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((done / "one" / "report.json").read_text(encoding="utf-8"))
    return read


def accuracy(stage: dict[str, Any], split: str) -> dict[str, Any]:
    (found,) = (m for m in stage["measurements"] if m["name"] == "accuracy" and m["split"] == split)
    return dict(found)


def squeezed(text: str) -> str:
    return " ".join(text.split())


def refused(result: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """Exit code 1 and one paragraph without a traceback that has all the parts."""
    assert result.returncode == 1
    assert result.stdout == ""
    paragraphs = [part for part in result.stderr.strip().split("\n\n") if part]
    assert len(paragraphs) == 1
    assert result.stderr.lstrip().startswith("Error ")
    assert "Traceback" not in result.stderr
    assert "defect" not in result.stderr
    for part in parts:
        assert part in squeezed(result.stderr)


def test_writes_exactly_the_files_of_a_result_and_keeps_others(done: Path) -> None:
    files = {"model.onnx", "model.pt2", "recipe.yaml", "report.json"}
    assert {file.name for file in (done / "one").iterdir()} == files | {"mine.txt"}
    assert {file.name for file in (done / "two").iterdir()} == files
    assert (done / "one" / "mine.txt").read_text() == "keep me"


def test_ten_lines_reproduce_the_reported_accuracy(done: Path, inputs: Path, report: dict[str, Any]) -> None:
    """With numpy and ONNX Runtime alone, in a process that has nothing of Paredown."""
    script = """
import json, sys
import numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1])
how = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
data = np.load(sys.argv[2])
rows = data["split"] == "test"
pixels = data["images"][rows][:, None].astype(np.float32) / 255
shape = (1, -1, 1, 1)
x = (pixels - np.float32(how["mean"]).reshape(shape)) / np.float32(how["std"]).reshape(shape)
print((session.run(["logits"], {"input": x})[0].argmax(1) == data["labels"][rows]).mean())
"""
    files = map(str, (done / "one" / "model.onnx", inputs / "pictures.npz"))
    result = subprocess.run(
        [sys.executable, "-I", "-c", script, *files], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) == accuracy(report["stages"][-1], "test")["value"]


def test_the_report_has_the_fields_of_the_format(report: dict[str, Any]) -> None:
    assert {"model", "dataset", "recipe", "baseline", "stages", "host", "versions"} <= report.keys()
    assert report["recipe"]["name"] == "Tiny – ½"
    assert report["dataset"]["classes"] == ["cat", "dog", "süß"]
    assert report["dataset"]["samples"] == {"train": 60, "calibration": 60, "validation": 60, "test": 120}
    assert [stage["method"] for stage in report["stages"]] == ["structured_pruning", "fine_tuning"]
    assert [stage["index"] for stage in report["stages"]] == [1, 2]
    assert report["stages"][0]["settings"].items() >= {"amount": 0.3, "round_to": 4}.items()
    assert report["stages"][0]["settings"].keys() == set(METHODS["structured_pruning"].settings())
    assert report["stages"][1]["seconds"] > 0
    keys = {"name", "value", "low", "high", "unit", "better", "split", "samples", "target"}
    for stage in (report["baseline"], *report["stages"]):
        assert all(keys <= measurement.keys() for measurement in stage["measurements"])
        for split, samples in (("validation", 60), ("test", 120)):
            found = accuracy(stage, split)
            assert (found["unit"], found["better"], found["samples"]) == ("share", "higher", samples)
            assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        targets = [m["target"] for m in stage["measurements"] if m["name"].startswith("latency")]
        assert len(targets) >= 3
        assert {"host", "device", "runtime", "version", "threads", "batch"} == targets[0].keys()
        names = {m["name"] for m in stage["measurements"]}
        assert {"size", "parameters", "macs", "latency_p50", "latency_p90", "latency_ratio"} <= names


def test_the_file_size_is_that_of_the_file(done: Path, report: dict[str, Any]) -> None:
    (size,) = (m["value"] for m in report["stages"][-1]["measurements"] if m["name"] == "size")
    assert size == (done / "one" / "model.onnx").stat().st_size


def test_plain_torch_opens_the_archive_and_gets_the_same_logits(done: Path) -> None:
    net = torch.export.load(done / "one" / "model.pt2").module()
    session = ort.InferenceSession(done / "one" / "model.onnx")
    for samples in (1, 3, 7):
        inputs = torch.rand(samples, 1, 8, 8)
        (logits,) = session.run(["logits"], {"input": inputs.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(net(inputs), logits, rtol=1e-3, atol=1e-4)


def test_the_recipe_is_spelled_out(done: Path) -> None:
    written = (done / "one" / "recipe.yaml").read_text(encoding="utf-8")
    assert written.startswith("name: Tiny – ½\n")
    assert "label_smoothing: 0.0" in written


def test_nothing_that_goes_out_tells_where_it_was_made(done: Path, inputs: Path) -> None:
    traces = [
        str(ROOT), str(Path.home()), str(inputs), str(done), f"/{getpass.getuser()}/", "site-packages",
        "Traceback", 'File "', ".py", "CifarResNet", "BasicBlock", "GraphModule", "nn_module_stack",
    ]  # fmt: skip
    for file in (done / "two").iterdir():
        content = file.read_bytes()
        assert [trace for trace in traces if trace.encode() in content] == [], file.name


def test_two_processes_at_once_do_every_stage_once(done: Path) -> None:
    reports = [json.loads((done / name / "report.json").read_text("utf-8")) for name in ("one", "two")]
    for stages in zip(*([r["baseline"], *r["stages"]] for r in reports), strict=True):
        assert sorted(stage["from_cache"] for stage in stages) == [False, True]
        assert accuracy(stages[0], "test") == accuracy(stages[1], "test")
    contents = [(done / name / "model.onnx").read_bytes() for name in ("one", "two")]
    assert contents[0] == contents[1]


def test_nothing_temporary_stays(done: Path) -> None:
    kept = list((done / "data" / "stages").iterdir())
    assert len(kept) == 3
    assert all(path.suffix == "" and path.is_dir() for path in kept)


def test_a_table_and_where_the_files_are(done: Path) -> None:
    table = (done / "one.stdout").read_text()
    assert len([line for line in table.splitlines() if line.startswith("│") and "x faster" in line]) == 2 or (
        "x slower" in table
    )
    for part in ("baseline", "structured_pruning", "Accuracy % (test)", "p90 ms", "MACs", "95 % intervals"):
        assert part in table
    assert f"{done / 'one'}: model.onnx, model.pt2, recipe.yaml, report.json" in table
    assert "mine.txt" not in table
    progress = (done / "one.stderr").read_text()
    assert [line[:3] for line in progress.split("\n") if line] == ["1/3", "2/3", "3/3"]


def test_a_second_run_takes_everything_from_the_cache(
    done: Path, inputs: Path, sources: Sources, report: dict[str, Any], paredown: Paredown, tmp_path: Path
) -> None:
    """Into a folder with the result of something else, with another name and another model's name."""
    out = tmp_path / "new" / "out"
    result = paredown("run", inputs / "recipe.yaml", *sources, "--out", out, data=done / "data")
    assert result.returncode == 0
    assert [line.split(": ")[1] for line in result.stderr.split("\n") if line] == ["from cache"] * 3
    again = json.loads((out / "report.json").read_text("utf-8"))
    assert [stage["from_cache"] for stage in again["stages"]] == [True, True]
    for stage, first in zip(again["stages"], report["stages"], strict=True):
        assert stage["seconds"] == first["seconds"] or first["from_cache"]
        for split in ("validation", "test"):
            assert accuracy(stage, split) == accuracy(first, split)
    assert (out / "model.onnx").read_bytes() == (done / "one" / "model.onnx").read_bytes()


def test_an_onnx_upload_is_measured_and_exported(
    done: Path, inputs: Path, report: dict[str, Any], paredown: Paredown, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.pt2").write_bytes(b"of an earlier run")
    upload = ["--model", done / "one" / "model.onnx", "--dataset", inputs / "pictures.npz"]
    result = paredown("run", inputs / "baseline.yaml", *upload, "--out", out)
    assert result.returncode == 0, result.stderr
    assert {file.name for file in out.iterdir()} == {"model.onnx", "recipe.yaml", "report.json"}
    baseline = json.loads((out / "report.json").read_text("utf-8"))["baseline"]
    numbers = {m["name"]: m["value"] for m in baseline["measurements"]}
    graph = {m["name"]: m["value"] for m in report["stages"][-1]["measurements"]}
    assert numbers["macs"] == graph["macs"]
    weights = onnx.load(out / "model.onnx").graph.initializer
    assert numbers["parameters"] == sum(
        np.prod(t.dims) for t in weights if t.data_type == onnx.TensorProto.FLOAT
    )
    assert accuracy(baseline, "test") == accuracy(report["stages"][-1], "test")


@pytest.mark.slow
def test_early_exits_come_as_one_file_and_its_description(
    inputs: Path, sources: Sources, paredown: Paredown, tmp_path: Path
) -> None:
    (tmp_path / "exits.yaml").write_text(EXITS)
    out = tmp_path / "out"
    result = paredown("run", "exits.yaml", *sources, "--out", out)
    assert result.returncode == 0, result.stderr
    assert {file.name for file in out.iterdir()} == {
        "model.onnx", "model.pt2", "exits.json", "recipe.yaml", "report.json",
    }  # fmt: skip
    told = json.loads((out / "exits.json").read_text("utf-8"))
    assert len(told["cuts"]) == 2
    assert [len(told[name]) for name in ("temperatures", "thresholds", "path_ms")] == [3, 2, 3]
    assert told["path_ms"][0] < told["path_ms"][2]
    assert told["guarantee"]["confidence"] == 0.9
    assert told["guarantee"]["samples"] == 30
    assert told["guarantee"]["sentence"].startswith("With 90 % confidence")
    assert told["times"]["stream"]["calls"] >= 96
    session = ort.InferenceSession(out / "model.onnx")
    how = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    data = np.load(inputs / "pictures.npz")
    rows = data["split"] == "validation"
    pixels = data["images"][rows][:, None] / np.float32(255)
    pixels = ((pixels - np.float32(how["mean"])) / np.float32(how["std"])).astype(np.float32)
    found = [session.run(["logits", "exit"], {"input": one[None]}) for one in pixels]
    taken = np.array([int(exit_[0]) for _, exit_ in found])
    assert told["share"] == [(taken == number).mean() for number in (1, 2, 3)]
    right = np.array([logits.argmax() for logits, _ in found]) == data["labels"][rows]
    assert told["accuracy"] == right.mean()
    (ratio,) = (
        m["value"] for m in json.loads((out / "report.json").read_text("utf-8"))["stages"][-1]["measurements"]
        if m["name"] == "latency_ratio"
    )  # fmt: skip
    assert ratio == pytest.approx(told["mean_ms"] / told["baseline_ms"])


def test_steps_that_train_refuse_an_onnx_upload(
    done: Path, inputs: Path, inside: Paredown, tmp_path: Path
) -> None:
    upload = ["--model", done / "one" / "model.onnx", "--dataset", inputs / "pictures.npz"]
    result = inside("run", inputs / "recipe.yaml", *upload, "--out", tmp_path / "out")
    refused(result, "step 1 (structured_pruning)", "no graph", ".pt2")
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "data").rglob("*.npy"))


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        (RECIPE.replace("structured_pruning", "prune"), ("line 3: steps.0.method", "prune", "fine_tuning")),
        (RECIPE.replace("amount", "amuont"), ("line 4: steps.0.amuont", "paredown methods")),
        (RECIPE.replace("0.3", "30"), ("line 4: steps.0.amount: 30", "0.95")),
        (None, ("recipe.yaml: cannot be read", "No such file")),
    ],
)
def test_a_bad_recipe(
    recipe: str | None, parts: tuple[str, ...], sources: Sources, inside: Paredown, tmp_path: Path
) -> None:
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    refused(inside("run", tmp_path / "recipe.yaml", *sources, "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "more", "parts"),
    [
        (["--model", "none.pt"], {}, ("none.pt: is not", "Give the path")),
        (["--dataset", "none.npz"], {}, ("none.npz", "no file")),
        (["--out", "taken"], {}, ("--out taken", "is a file", "Name a folder.")),
        (["--out", "taken/below"], {}, ("--out taken/below", "is a file")),
        (["--mean", "a,b"], {}, ("--mean a,b", "not a list of numbers")),
        (["--std", "nan"], {}, ("--std nan", "not a list of numbers")),
        (["--other", "big.pt2"], {}, ("--other big.pt2", "is not NAME=FILE")),
        (["--other", "big=none.pt2"], {}, ("none.pt2: is not", "Give the path")),
        (["--model", "\udcff.pt"], {}, ("?.pt: is not", "Give the path")),
        ([], {"PAREDOWN_THREADS": "many"}, ("PAREDOWN_THREADS=many", "integer")),
        ([], {"PAREDOWN_DEVICE": "abacus"}, ("PAREDOWN_DEVICE=abacus", "Use `cpu`")),
    ],
)
def test_bad_options(
    options: list[str],
    more: dict[str, str],
    parts: tuple[str, ...],
    inputs: Path,
    sources: Sources,
    inside: Paredown,
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").touch()
    before = ["run", inputs / "baseline.yaml", *sources, "--out", "out"]
    refused(inside(*before, *options, **more), *parts)
    assert {path.name for path in tmp_path.iterdir()} <= {"taken", "data"}
    assert (tmp_path / "taken").read_bytes() == b""


def test_what_a_form_would_ask_for_is_named_as_options(inside: Paredown, inputs: Path) -> None:
    files = ["--model", inputs / "weights.pt", "--dataset", inputs / "pictures.npz"]
    refused(inside("run", inputs / "baseline.yaml", *files, "--out", "out"), "weights only", "--arch")
    named = [*files, "--arch", "cifar_resnet8", "--mean", ".5,.5,.5"]
    refused(inside("run", inputs / "baseline.yaml", *named, "--out", "out"), "1 channels, but mean", "--mean")


def test_a_teacher_that_the_recipe_names_must_be_given(
    inputs: Path, sources: Sources, inside: Paredown, tmp_path: Path
) -> None:
    """One of another name is taken in, and does not count."""
    step = "{method: distillation, teacher: other, teacher_model: huge}"
    (tmp_path / "recipe.yaml").write_text(f"steps: [{step}]", encoding="utf-8")
    given = ["--other", f"big={inputs / 'weights.pt'}:cifar_resnet8", "--out", "out"]
    refused(inside("run", "recipe.yaml", *sources, *given), "step 1 (distillation)", "'huge'", "--other")
    assert not (tmp_path / "out").exists()


def test_a_wrong_number_of_classes(
    inputs: Path, sources: Sources, paredown: Paredown, tmp_path: Path
) -> None:
    """With --debug the traceback comes before the sentence. A folder that was there stays as it was."""
    data = dict(np.load(inputs / "pictures.npz"))
    np.savez(tmp_path / "four.npz", **{**data, "classes": np.array(list("abcd"))})
    (tmp_path / "out").mkdir()
    before = ["run", inputs / "baseline.yaml", *sources, "--dataset", "four.npz"]
    result = paredown(*before, "--out", "out", "--debug")
    assert result.returncode == 1
    trace, _, sentence = result.stderr.rpartition("Error ")
    assert "Traceback (most recent call last)" in trace
    assert "3 classes apart, the dataset has 4" in squeezed(sentence)
    assert not list((tmp_path / "out").iterdir())


def test_a_refusal_of_the_process_is_one_paragraph(
    sources: Sources, paredown: Paredown, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text("steps:\n- method: fine_tuning\n  epochs: 0\n")
    result = paredown("run", "r.yaml", *sources, "--out", "out")
    refused(result, "r.yaml, line 3: steps.0.epochs: 0: Input should be greater than or equal to 1.")


def test_a_missing_option_names_it(inside: Paredown) -> None:
    result = inside("run", "recipe.yaml")
    assert result.returncode == 2
    assert "--model" in result.stderr


def test_methods_lists_every_method_with_every_setting(paredown: Paredown) -> None:
    result = paredown("methods")
    assert result.returncode == 0
    blocks = dict(zip(METHODS, result.stdout.strip().split("\n\n"), strict=True))
    for name, method in METHODS.items():
        text = squeezed(blocks[name])
        assert text.startswith(f"{name} {method.title}")
        assert squeezed(method.caution) in text
        for field, info in method.model_fields.items():
            assert f"{field} = {info.default}" in text
            assert squeezed(info.description or "") in text
    assert "(>= 0, <= 0.95)" in result.stdout
    assert "(sgd | adamw)" in result.stdout


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from app.cli import main; sys.argv = ['paredown', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, {'torch', 'onnx', 'pydantic'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip().endswith("0 set()")
    assert "run" in result.stdout


def test_a_defect_and_a_full_disk_are_sentences() -> None:
    assert _sentence(ZeroDivisionError("a\n  b")).startswith("ZeroDivisionError: a b. This is a defect")
    full = _sentence(OSError(28, "No space left on device", "/data/x"))
    assert full.startswith("/data/x: No space left on device. ")
    assert "defect" not in full


@pytest.mark.slow
def test_a_run_in_torch_is_measured_there_and_says_so(
    inside: Paredown, inputs: Path, sources: Sources, tmp_path: Path
) -> None:
    out = tmp_path / "result"
    result = inside("run", inputs / "baseline.yaml", *sources, "--out", out, "--runtime", "torch_eager")
    assert result.returncode == 0, result.stderr
    assert f"Latency: torch_eager {torch.__version__.partition('+')[0]}, cpu, 1 thread(s)" in result.stdout
    read = json.loads((out / "report.json").read_text(encoding="utf-8"))
    targets = [m["target"] for m in read["baseline"]["measurements"] if m["target"]]
    assert {target["runtime"] for target in targets} == {"torch_eager"}
    assert (out / "model.onnx").exists()


def test_a_runtime_that_is_not_known_is_refused_with_the_names(
    inside: Paredown, inputs: Path, sources: Sources
) -> None:
    result = inside("run", inputs / "recipe.yaml", *sources, "--out", "result", "--runtime", "tflite")
    refused(result, "runtime tflite", "is not known here", "onnxruntime", "fastest, all")


def test_the_runtimes_are_listed(inside: Paredown) -> None:
    result = inside("runtimes")
    assert result.returncode == 0
    for name in RUNTIMES:
        assert name in result.stdout
