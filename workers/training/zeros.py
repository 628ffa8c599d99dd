"""Training that leaves pruned weights at zero."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def zeros_kept(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Weights of `model` that are zero are still exactly zero after any training inside the block.

    They get no gradient; then SGD with momentum and AdamW, which start from nothing in every training, move
    them as little as weight decay does. Biases and norms (one dimension) are free.
    wanted: False changes nothing, for models whose zeros are there by chance.
    """
    weights = [weight for weight in model.parameters() if weight.dim() > 1 and weight.requires_grad]
    hooks = [weight.register_hook(_Mask(weight)) for weight in weights if wanted]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Mask:
    """Removes the gradient where the weight was zero when this was made."""

    def __init__(self, weight: Tensor) -> None:
        self.kept = weight.detach() != 0

    def __call__(self, gradient: Tensor) -> Tensor:
        self.kept = self.kept.to(gradient.device)  # training may have moved the weight since
        return gradient * self.kept
