"""How samples reach the model: in turns with measurements, on the device, in the layout it is fastest in."""

from collections.abc import Generator, Iterable

import torch
from torch import Tensor, nn

from workers.base import LabelledData, Split
from workers.errors import StepFailed
from workers.training.settings import TrainingSettings
from workers.turns import training_turn

Batch = tuple[Tensor, Tensor]


class Feed:
    """Batches of one data set, ready for one model on one device."""

    def __init__(self, data: LabelledData, settings: TrainingSettings, device: torch.device) -> None:
        self.data, self.settings, self.device = data, settings, device
        self.memory_format = torch.contiguous_format

    def fit(self, model: nn.Module) -> None:
        """Move ``model`` in place to the device, in the memory format that the batches then have too.

        Channels last trains convolutions 1.3-1.8 times faster on AVX2 cores and changes nothing for
        transformers, but a graph that calls view() on feature maps cannot take it.
        """
        inputs, _ = next(iter(self.data.batches("validation", 2)))
        self.memory_format = fitting_memory_format(model.eval(), inputs)
        model.to(memory_format=self.memory_format).to(self.device)

    def count(self) -> int:
        """Batches in one epoch of training. Raises StepFailed when there is none."""
        samples = len(self.data.labels("train"))
        if samples < 2:
            raise StepFailed("training", f"the train split holds {samples} sample(s).", "Bring at least two.")
        full, rest = divmod(samples, self.settings.batch_size)
        return full + (rest > 1)

    def training(self, seed: int) -> Generator[Batch, None, None]:
        """One epoch, shuffled and augmented by ``seed``.

        A last batch of one is left out: BatchNorm cannot train on it. The shuffle makes it another sample
        every epoch.
        """
        batches = self.data.batches(
            "train", self.settings.batch_size, shuffle=seed, augment=self.settings.augmentation
        )
        return self._in_turns(batch for batch in batches if len(batch[1]) > 1)

    def whole(self, split: Split) -> Generator[Batch, None, None]:
        """Every sample of a split, in its order and as it is."""
        return self._in_turns(self.data.batches(split, self.settings.batch_size))

    def _in_turns(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Hold the host's training turn while a batch is made and used; close the generator when done."""
        iterator = iter(batches)
        while True:
            with training_turn():
                batch = next(iterator, None)
                if batch is None:
                    return
                yield self._placed(*batch)

    def _placed(self, inputs: Tensor, labels: Tensor) -> Batch:
        if self.device.type == "cuda":
            inputs, labels = inputs.pin_memory(), labels.pin_memory()
        inputs = inputs.to(self.device, memory_format=self.memory_format, non_blocking=True)
        return inputs, labels.to(self.device, non_blocking=True)


def mixup_partners(samples: int, alpha: float) -> tuple[float, Tensor]:
    """The share that each sample keeps of itself, and the (N,) indices that the rest comes from.

    mixup (Zhang et al. 2018, arXiv:1710.09412), one share per batch; from torch's global generator.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    return share, torch.randperm(samples)


def uses_mixed_precision(settings: TrainingSettings, device: torch.device) -> bool:
    """True on GPUs that compute in bfloat16, whose range is that of float32: no loss scaling is needed."""
    if settings.mixed_precision == "off" or device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def fitting_memory_format(model: nn.Module, inputs: Tensor) -> torch.memory_format:
    """Channels last where ``model``, in eval mode on the device of ``inputs``, can take it."""
    try:
        model.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            model(inputs.to(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
