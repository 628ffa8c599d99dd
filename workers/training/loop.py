"""The training loop: trains a model in place, keeps the best of its epochs, survives a kill.

Knows no method: what is minimised comes in as a callable. A model gives logits (N, classes), or one with
exits (N, exits + 1, classes), whose accuracy is that of its end.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from workers.base import Context, Progress
from workers.training import checkpoints
from workers.training.batches import Feed, mixup_partners, uses_mixed_precision
from workers.training.losses import EpochLosses, Loss
from workers.training.settings import TrainingSettings
from workers.training.state import History, Rank, TrainingState, by_accuracy
from workers.turns import training_turn

SECONDS_BETWEEN_REPORTS = 0.1


def train(
    model: nn.Module, context: Context, *, settings: TrainingSettings, loss: Loss, rank: Rank = by_accuracy
) -> History:
    """Train ``model`` in place; it ends with the weights of its best epoch, in eval mode, on the CPU.

    Best means validation accuracy, or what ``rank`` makes of an epoch's point; the model before training
    competes as epoch 0. Parameters that do not require gradients stay. Started again after a kill with the
    same arguments, it goes on from the last finished epoch and, on the CPU with as many threads, ends with
    the same bits. The checkpoint stays in ``context.scratch`` for the folder's owner to delete.

    ``context.tell`` hears of batches at most ten times a second, and of every epoch with its point.
    Raises StepFailed when the loss or its gradient stops being finite; ``model`` is then spoilt.
    """
    return _Loop(model, context, settings, loss, rank).run()


class _Loop:
    def __init__(
        self, model: nn.Module, context: Context, settings: TrainingSettings, loss: Loss, rank: Rank
    ) -> None:
        self.model, self.context, self.settings, self.loss = model, context, settings, loss
        self.key = checkpoints.fingerprint(model, settings, context)
        self.feed = Feed(context.data, settings, context.device)
        self.feed.fit(model)
        self.batches = self.feed.count()
        self.state = TrainingState(model, settings, settings.epochs * self.batches, rank)
        self.mixed_precision = uses_mixed_precision(settings, context.device)
        self.next_report = 0.0

    def run(self) -> History:
        saved = checkpoints.load(self.context.scratch, self.key, self.context.device)
        if saved:
            self.state.load_state_dict(saved)
        else:
            self.state.record({"epoch": 0, **self._accuracies()})
        for point in self.state.points:
            self._report_epoch(point)
        for epoch in range(len(self.state.points), self.settings.epochs + 1):
            if self.state.finished_early:
                break
            self.state.record(self._epoch(epoch))
            with training_turn():
                checkpoints.save(self.context.scratch, self.key, self.state.state_dict())
            self._report_epoch(self.state.points[-1])
        self.state.optimizer.zero_grad()  # gradients would take as much memory as the weights
        self.model.load_state_dict(self.state.best_weights)
        self.model.cpu().to(memory_format=torch.contiguous_format).eval()
        return self.state.history

    def _epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training split, then the accuracy it led to."""
        self.model.train()
        losses = EpochLosses(epoch, self.settings.learning_rate)
        with _seeded(self.context, epoch) as seed, closing(self.feed.training(seed)) as batches:
            for batch, (inputs, labels) in enumerate(batches, start=1):
                losses.add(*self._step(inputs, labels))
                if time.monotonic() >= self.next_report:
                    losses.check()
                    self._report_batch(epoch, batch)
        return {
            "epoch": epoch,
            "loss": losses.mean(),
            **self._accuracies(),
            "learning_rate": float(self.state.schedule.get_last_lr()[0]),
        }

    def _step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One update of the weights; its loss and the norm that the gradient had before clipping."""
        self.state.optimizer.zero_grad()
        loss = self._loss(inputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip or math.inf)
        self.state.optimizer.step()
        self.state.schedule.step()
        return loss, norm

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Of the batch, or of its samples blended with one another."""
        if not self.settings.mixup:
            return self.loss(self._logits(inputs), labels, inputs)
        share, partners = mixup_partners(len(labels), self.settings.mixup)
        inputs = share * inputs + (1 - share) * inputs[partners]
        logits = self._logits(inputs)
        own, theirs = (self.loss(logits, y, inputs) for y in (labels, labels[partners]))
        return share * own + (1 - share) * theirs

    def _logits(self, inputs: Tensor) -> Tensor:
        """In float32, whatever the network computes in."""
        if not self.mixed_precision:
            logits: Tensor = self.model(inputs)
            return logits
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits = self.model(inputs)
        return logits.float()

    def _accuracies(self) -> dict[str, float]:
        """Share of the validation split that the model gets right as it stands: its end, and each exit."""
        self.model.eval()
        right = torch.zeros((), dtype=torch.int64, device=self.context.device)
        with torch.inference_mode(), closing(self.feed.whole("validation")) as batches:
            for inputs, labels in batches:
                answers = self.model(inputs).argmax(dim=-1).view(len(labels), -1)
                right = right + (answers == labels[:, None]).sum(dim=0)
        samples = len(self.context.data.labels("validation"))
        *exits, end = (count / samples for count in right.tolist())
        return {"accuracy": end} | {f"exit_{number}": share for number, share in enumerate(exits, start=1)}

    def _report_batch(self, epoch: int, batch: int) -> None:
        self.next_report = time.monotonic() + SECONDS_BETWEEN_REPORTS
        share = ((epoch - 1) * self.batches + batch) / (self.settings.epochs * self.batches)
        text = f"Epoch {epoch} of {self.settings.epochs}, batch {batch} of {self.batches}"
        self.context.tell(Progress(text, share))

    def _report_epoch(self, point: dict[str, float]) -> None:
        text = f"Epoch {point['epoch']:g} of {self.settings.epochs}: {point['accuracy']:.2%} on validation"
        self.context.tell(Progress(text, point["epoch"] / self.settings.epochs, dict(point)))


@contextmanager
def _seeded(context: Context, epoch: int) -> Iterator[int]:
    """Seed torch for one epoch and give that seed; puts the generators back afterwards.

    No state of a generator has to be saved, then: an epoch's randomness depends on nothing before it.
    """
    seed = int(np.random.SeedSequence([context.seed, epoch]).generate_state(1)[0])
    devices = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield seed
