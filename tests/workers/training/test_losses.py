import math

import pytest
import torch

from workers.errors import StepFailed
from workers.training.losses import EpochLosses, cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_smoothed_cross_entropy_by_hand(smoothing: float) -> None:
    logits, label, classes = [2.0, -1.0, 0.5], 2, 3
    shares = [math.exp(z) / sum(map(math.exp, logits)) for z in logits]
    targets = [(1 - smoothing) * (c == label) + smoothing / classes for c in range(classes)]
    expected = -sum(t * math.log(p) for t, p in zip(targets, shares, strict=True))
    loss = cross_entropy(smoothing)(torch.tensor([logits]), torch.tensor([label]), torch.empty(0))
    assert loss.item() == pytest.approx(expected)


def test_mean_is_over_all_batches_whenever_they_were_read() -> None:
    losses = EpochLosses(1, 0.1)
    for value in (1.0, 2.0, 6.0):
        losses.add(torch.tensor(value), torch.tensor(1.0))
        if value == 2.0:
            losses.check()
    assert losses.mean() == 3.0


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.inf), (1.0, math.nan)]
)
def test_says_which_batch_stopped_being_finite(loss: float, norm: float) -> None:
    losses = EpochLosses(4, 0.1)
    losses.add(torch.tensor(1.0), torch.tensor(1.0))
    losses.check()
    for values in ((1.0, 1.0), (loss, norm), (math.nan, math.nan)):
        losses.add(*map(torch.tensor, values))
    with pytest.raises(StepFailed, match="epoch 4, batch 3") as refusal:
        losses.check()
    assert f"{loss:g}" in refusal.value.what
    assert "0.01" in refusal.value.fix
