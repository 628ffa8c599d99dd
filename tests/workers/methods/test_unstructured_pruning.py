"""Which weights go is found again by sorting or by looking at every group; the schedule by hand."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from pydantic import ValidationError
from torch import Tensor, fx, nn

from tests.support.arrays import ArrayData, candidate, context, easy_data, small_net
from workers import turns
from workers.base import Candidate, Method, Progress, Split
from workers.deploy.export import export_onnx
from workers.errors import StepFailed
from workers.measures.size import deflated_bytes
from workers.methods.distillation import Distillation
from workers.methods.fine_tuning import FineTuning
from workers.methods.quantization import Quantization
from workers.methods.structured_pruning import StructuredPruning
from workers.methods.unstructured_pruning import UnstructuredPruning, cubic
from workers.quantization.trials import Trials
from workers.training import loop

LAYERS = ("0.weight", "3.weight", "8.weight")


def net() -> fx.GraphModule:
    """Layers of different sizes of weights, so that a global and a local choice differ."""
    graph = small_net()
    with torch.no_grad():
        graph.get_parameter("3.weight").mul_(3)
    return graph


def weights(model: Candidate | nn.Module) -> dict[str, Tensor]:
    graph = model.graph if isinstance(model, Candidate) else model
    assert graph is not None
    return {name: graph.get_parameter(name).detach() for name in LAYERS}


def zeros(model: Candidate) -> dict[str, int]:
    return {name: int((weight == 0).sum()) for name, weight in weights(model).items()}


def flat(model: Candidate | nn.Module) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights(model).values()])


@pytest.mark.parametrize("amount", [0.001, 0.3, 0.5, 0.77, 0.99])
def test_exactly_the_smallest_weights_of_the_whole_model_go(tmp_path: Path, amount: float) -> None:
    before = flat(net())
    after = flat(UnstructuredPruning(amount=amount).apply(candidate(net()), context(tmp_path)))
    count = round(amount * len(before))
    assert int((after == 0).sum()) == count
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(after[after != 0], before[after != 0])


def test_every_layer_loses_the_same_share(tmp_path: Path) -> None:
    after = UnstructuredPruning(amount=0.3, scope="layer").apply(candidate(net()), context(tmp_path))
    for name, weight in weights(net()).items():
        gone = weights(after)[name] == 0
        assert int(gone.sum()) == round(0.3 * weight.numel())
        assert weight[gone].abs().max() <= weight[~gone].abs().min()


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8", "2:8"])
def test_every_group_keeps_its_n_largest(tmp_path: Path, pattern: str) -> None:
    """Looked at group by group; the first layer has one input channel and no groups."""
    kept, group = map(int, pattern.split(":"))
    settings = {"pattern": pattern, "amount": 0.9}
    after = UnstructuredPruning.model_validate(settings).apply(candidate(net()), context(tmp_path))
    assert torch.equal(weights(after)["0.weight"], weights(net())["0.weight"])
    assert after.notes[1].endswith(": 0.")
    for name in LAYERS[1:]:
        weight, now = weights(net())[name], weights(after)[name]
        for place in torch.cartesian_prod(
            *[torch.arange(size) for size in (weight.shape[0], *weight.shape[2:])]
        ):
            out, *pixel = place.tolist() if place.dim() else [int(place)]
            for start in range(0, weight.shape[1], group):
                were = [weight[(out, start + i, *pixel)].item() for i in range(group)]
                are = [now[(out, start + i, *pixel)].item() for i in range(group)]
                largest = sorted(were, key=abs)[-kept:]
                assert [value if value in largest else 0 for value in were] == are


def test_the_cubic_schedule_by_hand() -> None:
    """Zhu & Gupta, equation 1, from 0 to 0.8 in 4 steps: 0.8 (1 - (1 - t/4)³)."""
    assert [cubic(0.0, 0.8, t / 4) for t in range(5)] == pytest.approx([0, 0.4625, 0.7, 0.7875, 0.8])
    assert cubic(0.5, 0.9, 0.5) == pytest.approx(0.9 - 0.4 / 8)


def test_gradual_pruning_trains_between_the_steps(tmp_path: Path) -> None:
    told: list[Progress] = []
    method = UnstructuredPruning(
        amount=0.8, scope="layer", pace="cubic", steps=4, epochs=2, batch_size=16, learning_rate=0.02
    )
    run = context(tmp_path, data=easy_data(), tell=told.append)
    after = method.apply(candidate(net()), run)
    assert int((flat(after) == 0).sum()) == round(0.8 * flat(net()).numel())
    alive = flat(after) != 0
    assert not torch.equal(flat(after)[alive], flat(net())[alive])
    points = [progress.values["epoch"] for progress in told if progress.values]
    assert points == list(range(9))
    assert [p.share for p in told] == sorted(p.share for p in told)
    assert {p.text.partition(",")[0] for p in told} == {f"Step {n} of 4" for n in range(1, 5)}
    shares = dict.fromkeys(p.text.partition(", ")[2].partition(" ")[0] for p in told)
    assert list(shares) == ["46.2%", "70.0%", "78.8%", "80.0%"]
    images, labels = run.data.splits["validation"]  # type: ignore[attr-defined]
    assert after.graph is not None
    assert (after.graph(images).argmax(1) == labels).float().mean() > 0.9


def test_every_step_shuffles_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    real = ArrayData.batches

    def noted(
        self: ArrayData, split: Split, size: int, *, shuffle: int | None = None, augment: str = "none"
    ) -> Any:
        seeds.append(shuffle)
        return real(self, split, size, shuffle=shuffle, augment=augment)

    monkeypatch.setattr(ArrayData, "batches", noted)
    method = UnstructuredPruning(pace="cubic", steps=2, epochs=2, batch_size=16)
    method.apply(candidate(net()), context(tmp_path))
    drawn = [seed for seed in seeds if seed is not None]
    assert len(set(drawn)) == len(drawn) == 4


def test_goes_on_after_a_kill_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = UnstructuredPruning(amount=0.8, pace="cubic", steps=3, epochs=2, batch_size=16)

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    whole = method.apply(candidate(net()), context(folder("whole")))
    epochs = []
    real = loop._Loop._epoch

    def counted(self: loop._Loop, epoch: int) -> dict[str, float]:
        epochs.append(epoch)
        if len(epochs) == 4:
            raise KeyboardInterrupt
        return real(self, epoch)

    monkeypatch.setattr(loop._Loop, "_epoch", counted)
    with pytest.raises(KeyboardInterrupt):
        method.apply(candidate(net()), context(folder("killed")))
    resumed = method.apply(candidate(net()), context(folder("killed")))
    assert epochs == [1, 2, 1, 2, 2, 1, 2]  # killed in the second step's second epoch, which is done again
    assert whole.graph is not None
    assert resumed.graph is not None
    state = whole.graph.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in resumed.graph.state_dict().items())


def test_gradual_patterns_end_in_the_pattern(tmp_path: Path) -> None:
    method = UnstructuredPruning(pattern="1:4", pace="cubic", steps=2, batch_size=16)
    after = weights(method.apply(candidate(net()), context(tmp_path)))["3.weight"]
    assert ((after.unflatten(1, (2, 4)) != 0).sum(2) == 1).all()  # type: ignore[no-untyped-call]


def test_gradual_patterns_may_begin_with_steps_of_no_weight(tmp_path: Path) -> None:
    """A twentieth of four weights is none of them; the last step is what counts."""
    shares = [cubic(0.0, 0.5, step / 20) for step in range(1, 21)]
    assert round(4 * shares[0]) == 0
    method = UnstructuredPruning(pattern="2:4", pace="cubic", steps=20, batch_size=16)
    after = weights(method.apply(candidate(net()), context(tmp_path)))["3.weight"]
    assert ((after.unflatten(1, (2, 4)) != 0).sum(2) == 2).all()  # type: ignore[no-untyped-call]
    no_groups = fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())).eval()
    with pytest.raises(StepFailed, match=r"no weight can become zero .* 50\.0% zeros"):
        method.apply(candidate(no_groups), context(tmp_path))


def test_fine_tuning_keeps_the_zeros(tmp_path: Path) -> None:
    pruned = UnstructuredPruning(amount=0.7).apply(candidate(net()), context(tmp_path))
    assert pruned.sparse
    settings = FineTuning(epochs=2, batch_size=16, learning_rate=0.02)
    tuned = settings.apply(pruned, context(tmp_path))
    assert tuned.sparse
    assert torch.equal(flat(tuned) == 0, flat(pruned) == 0)
    assert not torch.equal(flat(tuned), flat(pruned))
    (tmp_path / "free").mkdir()
    free = settings.apply(dataclasses.replace(pruned, sparse=False), context(tmp_path / "free"))
    assert flat(free).all()


def test_a_second_step_goes_on_from_the_first(tmp_path: Path) -> None:
    first = UnstructuredPruning(amount=0.4, scope="layer").apply(candidate(net()), context(tmp_path))
    second = UnstructuredPruning(amount=0.6, importance="random").apply(first, context(tmp_path))
    assert (flat(second)[flat(first) == 0] == 0).all()
    assert int((flat(second) == 0).sum()) == round(0.6 * flat(net()).numel())


@pytest.mark.parametrize("importance", ["l2", "taylor", "second_derivative", "random"])
def test_any_importance_decides(tmp_path: Path, importance: str) -> None:
    data = easy_data()
    run = context(tmp_path, data=ArrayData(data.splits | {"calibration": data.splits["train"]}, data.classes))
    method = UnstructuredPruning(amount=0.5, importance=importance)
    after = method.apply(candidate(net()), run)
    gone = flat(after) == 0
    assert int(gone.sum()) == round(0.5 * len(gone))
    by_size = flat(UnstructuredPruning(amount=0.5).apply(candidate(net()), run)) == 0
    assert torch.equal(gone, by_size) == (importance == "l2")


def test_layers_that_an_importance_cannot_judge_are_named(tmp_path: Path) -> None:
    after = UnstructuredPruning(amount=0.5, importance="batchnorm_scale").apply(
        candidate(net()), context(tmp_path)
    )
    assert zeros(after) == {"0.weight": 36, "3.weight": 0, "8.weight": 0}
    assert after.notes[1].endswith("does not apply to them: 3, 8.")


def test_the_compressed_file_gets_smaller_and_the_file_does_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 500), nn.ReLU(), nn.Linear(500, 3)))
    model = candidate(wide)
    sizes = {}
    for amount in (0.0, 0.5, 0.9):
        pruned = UnstructuredPruning(amount=amount).apply(model, context(tmp_path)) if amount else model
        file = tmp_path / f"{amount}.onnx"
        export_onnx(pruned, file, ("a", "b", "c"))
        sizes[amount] = (file.stat().st_size, deflated_bytes(file))
    assert len({size for size, _ in sizes.values()}) == 1
    assert sizes[0.5][1] < 0.65 * sizes[0.0][1]
    assert sizes[0.9][1] < 0.2 * sizes[0.0][1]
    was = sum(len(zlib.compress(w.detach().numpy().tobytes())) for w in wide.parameters() if w.dim() > 1)
    assert f"instead of {was / 1000:,.0f} kB" in pruned.notes[0]
    assert "30,150 of 33,500 weights are zero (90.00%)" in pruned.notes[0]
    assert "do not run faster" in pruned.notes[0]


def test_a_layer_without_any_weight_is_named(tmp_path: Path) -> None:
    graph = net()
    with torch.no_grad():
        graph.get_parameter("0.weight").mul_(1e-6)
    after = UnstructuredPruning(amount=0.5).apply(candidate(graph), context(tmp_path))
    assert after.notes[-1] == "Not one weight is left in 0: lower the amount, or set the scope to layer."


def test_the_given_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = candidate(net())
    UnstructuredPruning().apply(model, context(tmp_path))
    assert torch.equal(flat(model), flat(net()))


def test_it_says_before_the_run_that_nothing_gets_faster() -> None:
    assert "no faster" in UnstructuredPruning.caution


def test_nothing_that_can_become_zero(tmp_path: Path) -> None:
    graph = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).eval()
    with pytest.raises(StepFailed, match="no weight can become zero"):
        UnstructuredPruning(amount=0.001).apply(candidate(graph), context(tmp_path))


def test_refuses_a_model_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ONNX"):
        UnstructuredPruning().apply(candidate(None), context(tmp_path))


@pytest.mark.parametrize(
    "setting", [{"amount": 0}, {"amount": 1.0}, {"pattern": "3:4"}, {"steps": 1}, {"importance": "size"}]
)
def test_refuses_settings_out_of_bounds(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UnstructuredPruning.model_validate(setting)


@pytest.mark.parametrize(
    "later",
    [
        FineTuning(epochs=1, batch_size=16),
        Distillation(epochs=1, batch_size=16, teacher="current"),
        StructuredPruning(amount=0.2, round_to=2, recovery_epochs=1),
    ],
    ids=lambda method: type(method).__name__,
)
def test_every_step_that_trains_keeps_the_zeros(later: Method, tmp_path: Path) -> None:
    pruned = UnstructuredPruning(amount=0.6).apply(candidate(net()), context(tmp_path))
    after = later.apply(pruned, context(tmp_path))
    assert sum(zeros(after).values()) > 0.4 * sum(weight.numel() for weight in weights(after).values())


def test_zeros_survive_training_with_the_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the integers of the file; those of the last layer alone would be few by chance."""
    monkeypatch.setattr(turns, "LOCK_FOLDER", str(tmp_path))
    monkeypatch.setattr(Trials, "_ratios", lambda _, files: [0.5] * len(files))
    pruned = UnstructuredPruning(amount=0.6, scope="layer").apply(candidate(net()), context(tmp_path))
    method = Quantization(mode="qat", max_drop=100, epochs=2, batch_size=16, learning_rate=0.02)
    file = method.apply(pruned, context(tmp_path)).onnx
    assert file is not None
    stored = [t for t in onnx.load(file).graph.initializer if t.data_type == TensorProto.INT8]
    integers = [values for values in map(numpy_helper.to_array, stored) if values.ndim > 1]
    assert sorted(values.size for values in integers) == sorted(w.numel() for w in weights(net()).values())
    assert all((values == 0).mean() > 0.59 for values in integers)
