"""New run, "What to expect": its numbers with a kept table, against steps that were carried out and sums by
hand; and its sentences, which come from the place that is measured in.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch.fx import GraphModule

from app import session
from db import jobs, predictors
from db.models import Dataset, Model, Predictor, Worker
from tests.app.views.conftest import Open
from tests.support.experiments import LAPTOP, MACS, PARAMETERS, SIZE
from tests.support.noise import Noise
from tests.workers.prediction.tables import TARGET, spec, table
from workers.base import Candidate, Context, Target
from workers.catalog import METHODS, RUNTIMES
from workers.graph.students import known
from workers.measures.macs import count_macs
from workers.prediction.changes import OTHER
from workers.prediction.paying import NO_VNNI, ZEROS
from workers.prediction.plan import Plan
from workers.prediction.reading import read_plan
from workers.stages import code_sha256

SPEC = spec("cifar_resnet8", 32)
PRUNED = {"method": "structured_pruning", "amount": 0.5, "recovery": "none", "recalibrate": False}


@pytest.fixture(scope="module")
def graph() -> Any:
    return known("cifar_resnet8", SPEC, seed=0)


@pytest.fixture(scope="module")
def plan(graph: Any) -> Plan:
    return read_plan(graph, SPEC)[0]


def keep(plan: Plan, **times: float) -> None:
    """As after the job that builds it. A thousand samples to train on."""
    keep_of("", TARGET, plan, **times)


def keep_of(name: str, target: Target, plan: Plan, **times: float) -> None:
    built = table(plan, **times).model_copy(update={"target": target}).model_dump(mode="json")
    with session.writing() as opened:
        (model,) = opened.query(Model).all()
        (dataset,) = opened.query(Dataset).all()
        dataset.facts = {"classes": 10, "splits": {"train": 1000, "validation": 200, "test": 200}}
        known = predictors.of_model(opened, model.id, code_sha256(), name)
        if known is None:
            opened.add(known := Predictor(model_id=model.id, code=code_sha256(), target=name))
        known.key, known.table = f"{target.host} {target.version}", built


def add_machine(name: str = "lab", *, online: bool = True) -> None:
    """With a name, on another host."""
    facts = {"host": "0ther0ne", "system": "Linux 6.1 x86_64", "vnni": True}
    seen_at = time.time() + 1e6 if online else 1.0
    with session.writing() as opened:
        opened.add(Worker(id="t", queues=[f"target.{name}"], device="cpu", facts=facts, seen_at=seen_at))


def page_of(visit: Open, *steps: Mapping[str, Any], **query: str) -> AppTest:
    return visit("new_run", recipe=json.dumps({"name": "R", "steps": steps}), **query)


def numbers(page: AppTest) -> dict[str, tuple[str, str]]:
    """Of every row: before and after, without how they are set."""
    text = next(element.value for element in page.markdown if element.value.startswith("| | Now"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    plain = {"≈": "", ":gray[*": "", "*]": "", "\u00a0": " "}
    for old, new in plain.items():
        rows = [[cell.replace(old, new).strip() for cell in row] for row in rows]
    return {title: (before, after) for title, before, after in rows}


def told(page: AppTest) -> str:
    """As it is read: without the signs that keep Markdown away."""
    return " ".join(element.value for element in (*page.markdown, *page.caption)).replace("\\", "")


def test_numbers_of_pruning_are_those_of_the_network_that_was_cut(
    visit: Open,
    experiment: str,  # noqa: ARG001
    graph: Any,
    plan: Plan,
    tmp_path: Path,
) -> None:
    keep(plan)
    model = Candidate(SPEC, graph)
    onnx, cpu = RUNTIMES["onnxruntime"](), torch.device("cpu")
    context = Context(Noise((3, 32, 32)), model, onnx, TARGET, cpu, 0, tmp_path, lambda _: None)
    settings = {name: value for name, value in PRUNED.items() if name != "method"}
    made = METHODS["structured_pruning"].model_validate(settings).apply(model, context).graph
    assert made is not None
    macs = count_macs(made, SPEC) / count_macs(graph, SPEC)
    nets: list[GraphModule] = [made, graph]
    weights = [sum(p.numel() for p in net.parameters()) for net in nets]
    found = numbers(page_of(visit, PRUNED, {"method": "fine_tuning", "epochs": 3}))
    assert found["MACs"] == (f"{MACS / 1e6:.1f} M", f"{macs * MACS / 1e6:.1f} M")
    # Biases and normalizations, half a percent here, are not in the plan.
    parameters, unit = found["Parameters"][1].split()
    assert unit == "k"
    assert float(parameters) == pytest.approx(weights[0] / weights[1] * PARAMETERS / 1e3, rel=0.006)
    # In these tables a tenth of a file is no weight, and a tenth of the time no multiply-accumulate.
    size, unit = found["Size"][1].split()
    assert unit == "KiB"
    assert float(size) == pytest.approx((0.1 + 0.9 * weights[0] / weights[1]) * SIZE / 1024, rel=0.006)
    assert found["Latency"] == ("1x", f"{1 / (0.1 + 0.9 * macs):.1f}x faster")
    # Of its earlier stages, five epochs took 25 s each.
    assert found["Training"][1] == "15 s"


def test_int8_that_is_faster_is_smaller_too(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan, int8=2.0)
    page = page_of(visit, {"method": "quantization", "mode": "qat", "epochs": 2})
    found = numbers(page)
    assert found["MACs"] == (f"{MACS / 1e6:.1f} M", f"{MACS / 1e6:.1f} M")
    assert found["Size"][1] == f"{0.25 * SIZE / 1024:.1f} KiB"
    assert found["Latency"][1] == "2.0x faster"
    assert found["Training"][1] == f"{2 * (1000 * 1.5 * 0.004 + 200 * 0.001):.0f} s"
    # The worker's machine has no VNNI, but on it this model was timed in int8.
    assert NO_VNNI not in told(page)


@pytest.mark.parametrize("keep_faster", [True, False])
def test_int8_that_is_slower_is_told_with_its_number(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
    keep_faster: bool,
) -> None:
    keep(plan, int8=0.8)
    page = page_of(visit, {"method": "quantization", "keep_faster": keep_faster})
    found = numbers(page)
    assert "int8 takes 1.25 times as long as float32" in told(page)
    assert found["Latency"][1] == ("as fast" if keep_faster else "1.3x slower")  # 1.25
    assert found["Size"][1] == (f"{SIZE / 2**20:.1f} MiB" if keep_faster else f"{SIZE / 4 / 1024:.1f} KiB")


def test_what_cannot_be_guessed_says_why_and_leaves_no_cell_empty(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan)
    page = page_of(visit, {**PRUNED, "remove_blocks": 1})
    found = numbers(page)
    assert found["MACs"][1] == f"{MACS / 2e6:.1f} M"  # what was asked for
    assert found["Latency"] == ("1x", "not known")
    assert "*No estimate of latency: which residual blocks go is found out during the run.*" in told(page)
    page = page_of(visit, {"method": "distillation", "student": "shallower"})
    student = numbers(page)
    assert student["MACs"][1] == student["Training"][1] == "not known"
    assert "*How long training takes is known after a first run.*" in told(page)
    for row in (found, student):
        assert all(cell for cells in row.values() for cell in cells)


@pytest.mark.parametrize("name", ["lab", "onnxruntime"])  # also one that a runtime has
def test_sentences_are_about_the_machine_that_was_chosen(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
    name: str,
) -> None:
    """The worker's machine has no VNNI and no table of int8; the other machine has VNNI."""
    keep(plan)
    add_machine(name)
    with session.reading() as opened:
        here = opened.get_one(Worker, "worker-1")
        assert here.facts["host"] == LAPTOP["host"] == TARGET.host
    steps = {"method": "unstructured_pruning"}, {"method": "quantization"}
    own = page_of(visit, *steps)
    assert NO_VNNI in told(own)
    assert ZEROS in told(own)
    elsewhere = page_of(visit, *steps, machine=name)
    assert NO_VNNI not in told(elsewhere)
    assert ZEROS in told(elsewhere)
    assert numbers(elsewhere)["Latency"][1] == "not known"
    assert f"it follows once this model's layers are timed on {name}, behind" in told(elsewhere)
    with session.reading() as opened:
        asked = [job.queue for job in jobs.active(opened, [predictors.KIND])]
    assert asked == [f"target.{name}"]
    # What training takes is about the machine that does the run.
    trained = {"method": "fine_tuning", "epochs": 3}
    before = numbers(page_of(visit, PRUNED, trained, machine=name))["Training"]
    keep_of(name, TARGET.model_copy(update={"host": "0ther0ne"}), plan, int8=4.0)
    int8 = {"method": "quantization", "keep_faster": False}
    assert numbers(page_of(visit, int8, machine=name))["Latency"][1] == "4.0x faster"
    assert numbers(page_of(visit, int8))["Latency"][1] != "4.0x faster"
    assert numbers(page_of(visit, PRUNED, trained, machine=name))["Training"] == before
    other = page_of(visit, steps[1], machine=name, runtime="ncnn")
    assert "timed in ONNX Runtime on the processor alone" in told(other)


def test_what_is_chosen_by_time_is_chosen_where_the_run_is_done(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    add_machine()
    keep_of("lab", TARGET.model_copy(update={"host": "0ther0ne"}), plan, int8=4.0)
    quantized, any_way = {"method": "quantization"}, {"method": "quantization", "keep_faster": False}
    page = page_of(visit, quantized, machine="lab")
    assert numbers(page)["Latency"][1] == "not known"
    assert "once this model's layers are timed on the machine that does the run, behind" in told(page)
    with session.reading() as opened:
        assert [job.queue for job in jobs.active(opened, [predictors.KIND])] == ["cpu"]
    assert numbers(page_of(visit, any_way, machine="lab"))["Latency"][1] == "4.0x faster"
    keep(plan, int8=0.8)
    page = page_of(visit, quantized, machine="lab")
    assert numbers(page)["Latency"][1] == "as fast"
    assert "Set keep_faster to false" in told(page)
    assert numbers(page_of(visit, any_way, machine="lab"))["Latency"][1] == "4.0x faster"


def test_a_machine_that_is_away_is_asked_for_nothing(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan)
    add_machine(online=False)
    page = page_of(visit, {"method": "quantization"}, machine="lab")
    assert "layers are timed as soon as lab is online" in told(page)
    with session.reading() as opened:
        assert not jobs.active(opened, [predictors.KIND])


def job_of(name: str, **values: Any) -> str:
    """That of the machine with this name, with other columns."""
    with session.writing() as opened:
        (model,) = opened.query(Model).all()
        asked = predictors.of_model(opened, model.id, code_sha256(), name)
        assert asked is not None
        job = jobs.latest(opened, [asked.id])[asked.id]
        for column, value in values.items():
            setattr(job, column, value)
        return job.state


def bar(page: AppTest) -> str:
    """What stands above the bar of the job, before anything is polled."""
    (found,) = [
        json.loads(element.proto.json)["text"]
        for element in page.get("bidi_component")
        if element.proto.component_name == "paredown_progress"
    ]
    return str(found)


def test_what_waits_for_a_machine_says_whether_it_is_there(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan)
    add_machine()
    page = page_of(visit, {"method": "quantization"}, machine="lab")
    assert "which is offline" not in bar(page)
    with session.writing() as opened:
        opened.get_one(Worker, "t").seen_at = 1.0
    page = page_of(visit, {"method": "quantization"}, machine="lab")
    assert "Waits for target lab, which is offline" in bar(page)
    assert "it follows once lab is online again and has timed this model's layers" in told(page)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_table_that_came_to_nothing_is_asked_for_again_by_hand(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
    woken: list[str],
    state: str,
) -> None:
    keep(plan)
    add_machine()
    page_of(visit, {"method": "quantization"}, machine="lab")
    error = {"where": "worker", "what": "The process ended.", "fix": "Look into the job's log."}
    job_of("lab", state=state, error=error if state == "failed" else None)
    page = page_of(visit, {"method": "quantization"}, machine="lab")
    assert "it follows" not in told(page)
    if state == "failed":
        assert "The process ended." in told(page)
        assert "Look into the job's log." in told(page)
    (again,) = [button for button in page.button if button.label == "Time the layers again"]
    again.click().run()
    assert job_of("lab") == "queued"
    assert len(woken) == 1
    job_of("lab", state=state)
    with session.writing() as opened:
        opened.get_one(Worker, "t").seen_at = 1.0
    page = page_of(visit, {"method": "quantization"}, machine="lab")
    assert "Time the layers again" not in [button.label for button in page.button]


def asked() -> list[str]:
    """The queues of all jobs that build tables."""
    with session.reading() as opened:
        return [job.queue for job in jobs.active(opened, [predictors.KIND])]


@pytest.mark.parametrize("name", ["", "lab"])
def test_a_table_of_a_machine_that_is_no_more_is_built_again(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
    name: str,
) -> None:
    """Another board took the name; then another version of the runtime is there."""
    queue, other = f"target.{name}" if name else "cpu", TARGET.model_copy(update={"host": "0ther0ne"})
    runtime = {"id": "onnxruntime", "title": "", "devices": [], "missing": "", "install": ""}
    int8, machine = {"method": "quantization", "keep_faster": False}, {"machine": name} if name else {}

    def tells(seen_at: float = time.time() + 1e6, **facts: Any) -> None:
        with session.writing() as opened:
            opened.merge(Worker(id="t", queues=[queue], device="cpu", facts=facts, seen_at=seen_at))

    with session.writing() as opened:
        opened.get_one(Worker, "worker-1").queues = ["gpu"]
    keep(plan, int8=2.0)
    keep_of(name, TARGET, plan, int8=2.0)
    tells()
    page_of(visit, int8, **machine)
    assert asked() == [], "it has not told yet which machine it is"
    tells(1.0, host=other.host)
    page_of(visit, int8, **machine)
    assert asked() == [], "nobody is there who could"
    tells(host=other.host)
    for _ in range(2):
        assert "it follows once" in told(page_of(visit, int8, **machine))
    assert asked() == [queue]
    job_of(name, state="done")
    keep_of(name, other, plan, int8=4.0)
    tells(host=other.host, runtimes=[runtime | {"version": other.version}])
    assert numbers(page_of(visit, int8, **machine))["Latency"][1] == "4.0x faster"
    assert asked() == []
    tells(host=other.host, runtimes=[runtime | {"version": "2"}])
    page_of(visit, int8, **machine)
    assert asked() == [queue]


def test_a_table_of_any_of_several_workers_counts(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan, int8=2.0)
    with session.writing() as opened:
        facts = LAPTOP | {"host": "0ther0ne"}
        opened.add(Worker(id="a", queues=["cpu"], device="cpu", facts=facts, seen_at=time.time() + 1e6))
    assert numbers(page_of(visit, {"method": "quantization"}))["Latency"][1] == "2.0x faster"
    assert asked() == []


def test_a_machine_that_the_table_was_built_on_has_its_times(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan, int8=2.0)
    facts = {"host": TARGET.host, "system": "Linux 6.1 x86_64", "vnni": True}
    with session.writing() as opened:
        there = Worker(id="t", queues=["target.lab"], device="cpu", facts=facts, seen_at=time.time() + 1e6)
        opened.add(there)
    page = page_of(visit, {"method": "quantization"}, machine="lab")
    assert numbers(page)["Latency"][1] == "2.0x faster"


def test_other_runtimes_have_no_estimate(
    visit: Open,
    experiment: str,  # noqa: ARG001
    plan: Plan,
) -> None:
    keep(plan)
    global_by_chance = {**PRUNED, "scope": "global", "importance": "taylor"}
    assert OTHER in told(page_of(visit, global_by_chance))
    page = page_of(visit, global_by_chance, runtime="openvino")
    assert numbers(page)["Latency"][1] == "not known"
    assert "timed in ONNX Runtime on the processor alone. The run measures it.*" in told(page)
    assert OTHER not in told(page)
