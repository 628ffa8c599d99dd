"""Does the rebuilt model give the original's logits?"""

from collections.abc import Callable

import torch

from workers.errors import ModelRefused

Logits = Callable[[torch.Tensor], torch.Tensor]

#: Largest difference of a logit, relative to the largest logit, that rounding explains.
TOLERANCE = 1e-4


def parity_error(original: Logits, rebuilt: Logits, samples: torch.Tensor, classes: int) -> float:
    """Largest difference of a logit relative to the largest logit. samples: (N, C, H, W).

    Raises ModelRefused above TOLERANCE, and when the logits are not finite numbers (N, classes).
    """
    with torch.no_grad():
        # Clones: a stranger's program may write into its input.
        expected, got = original(samples.clone()), rebuilt(samples.clone())
    for logits in (expected, got):
        if list(logits.shape) != [len(samples), classes] or not logits.is_floating_point():
            raise ModelRefused(
                "the model",
                f"returns {logits.dtype} {list(logits.shape)} for {len(samples)} pictures, "
                f"not logits [{len(samples)}, {classes}].",
                "Export a module that returns one row of logits per picture.",
            )
        if not torch.isfinite(logits).all():
            raise ModelRefused(
                "the model",
                "returns NaN or infinite logits.",
                "Upload a model from before training went wrong.",
            )
    error = float((expected - got).abs().max() / expected.abs().max().clamp(min=1e-6))
    if error > TOLERANCE:
        raise ModelRefused(
            "the model",
            f"gives logits that differ by {error:.1%} after it was rebuilt (on {len(samples)} pictures).",
            "Please report the architecture; it uses an operation that Paredown reads wrongly.",
        )
    return error
