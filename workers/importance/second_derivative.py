"""How much the loss rises, to second order, when a weight becomes zero."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.fx import GraphModule

from workers.base import Context
from workers.graph.layer_roles import layer_weights
from workers.importance import Importance, calibration_batches, working_copy

#: Up to so many classes the Hessian of the loss is taken whole; above, one column of it is drawn per sample.
EXACT_CLASSES = 16
BATCH = 32


class SecondDerivative(Importance):
    """½ w² ∂²L/∂w², L being the mean cross-entropy of the calibration samples.

    For a linear layer a = W h it is ∂²L/∂w_ij² = (1/n) Σ_k h_k,j² ∂²L_k/∂a_k,i². Where a weight is used
    at many places, as in convolutions, its derivatives are summed over them, per sample, and then squared.
    ∂²L_k/∂a_k² is the Gauss-Newton diagonal, which for piecewise linear activations is the exact one.
    """

    title: ClassVar[str] = "Second derivative"
    source: ClassVar[str] = (
        "LeCun et al. 1990, Optimal Brain Damage, equation 5; Gauss-Newton: Schraudolph 2002; "
        "one drawn column: Martens & Grosse 2015 (arXiv:1503.05671), section 2"
    )

    def scores(self, graph: GraphModule, context: Context) -> dict[str, Tensor]:
        copy = working_copy(graph, context)
        curvature = _Curvature(copy, torch.Generator().manual_seed(context.seed))
        for inputs, _ in calibration_batches(context, BATCH):
            curvature.add(inputs)
        return {
            name: (0.5 * weight.detach().square() * curvature.diagonal(name)).float().cpu()
            for name, weight in layer_weights(copy).items()
        }


class _Curvature:
    """The diagonal of the Gauss-Newton matrix of the mean cross-entropy, summed up batch by batch."""

    def __init__(self, graph: GraphModule, generator: torch.Generator) -> None:
        self.graph, self.generator, self.samples = graph, generator, 0
        self.sums = {name: torch.zeros_like(weight) for name, weight in layer_weights(graph).items()}
        self.layers = {name: graph.get_submodule(name.removesuffix(".weight")) for name in self.sums}
        #: Of the last forward pass: layer, what went into it, what came out.
        self.calls: list[tuple[str, Tensor, Tensor]] = []

    def diagonal(self, name: str) -> Tensor:
        return self.sums[name] / self.samples

    def add(self, inputs: Tensor) -> None:
        logits = self._forward(inputs)
        if len(inputs) > 1 and not all(_rows_are_samples(call, len(inputs)) for call in self.calls):
            # Windows and token-first layouts: which rows belong to a sample is only known when there is one.
            for sample in inputs.unsqueeze(1):
                self.add(sample)
            return
        outputs = [output for _, _, output in self.calls]
        for column in _loss_hessian_columns(logits.detach(), self.generator):
            slopes = torch.autograd.grad(logits, outputs, column, retain_graph=True, materialize_grads=True)
            self._square(slopes, len(inputs))
        self.samples += len(inputs)

    def _forward(self, inputs: Tensor) -> Tensor:
        self.calls.clear()
        hooks = [layer.register_forward_hook(self._record(name)) for name, layer in self.layers.items()]
        logits: Tensor = self.graph(inputs)
        for hook in hooks:
            hook.remove()
        return logits

    def _record(self, name: str) -> Callable[..., Tensor]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            self.calls.append((name, inputs[0].detach(), output))
            return output.clone()  # an in-place activation would change what we keep

        return hook

    def _square(self, slopes: tuple[Tensor, ...], samples: int) -> None:
        """Add the squares of ∂/∂w per sample; a layer that is called twice sums its calls first."""
        gradients: dict[str, Tensor] = {}
        calls = [name for name, _, _ in self.calls]
        for (name, entered, _), slope in zip(self.calls, slopes, strict=True):
            if entered.dim() == 2 and len(entered) == samples and calls.count(name) == 1:
                self.sums[name] += slope.square().T @ entered.square()  # the formula above
                continue
            gradient = _weight_gradients(self.layers[name], entered, slope, samples)
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        for name, gradient in gradients.items():
            self.sums[name] += gradient.square().sum(0)


def _rows_are_samples(call: tuple[str, Tensor, Tensor], samples: int) -> bool:
    """True for feature maps (N, C, H, W) and for features (N, F)."""
    _, entered, _ = call
    return entered.dim() in (2, 4) and len(entered) == samples


def _weight_gradients(layer: nn.Module, entered: Tensor, slope: Tensor, samples: int) -> Tensor:
    """∂(slope · output)/∂weight for every sample: (samples, *weight.shape)."""
    weight = layer.get_parameter("weight").detach()

    def pull(entered: Tensor, slope: Tensor) -> Tensor:
        back = vjp(lambda w: functional_call(layer, {"weight": w}, (entered,)), weight)[1]
        gradient: Tensor = back(slope)[0]
        return gradient

    rows = (values.reshape(samples, -1, *values.shape[1:]) for values in (entered, slope))
    gradients: Tensor = vmap(pull)(*rows)
    return gradients


def _loss_hessian_columns(logits: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Columns s (N, classes) whose s sᵀ add up to the Hessian of the cross-entropy, diag(p) - p pᵀ.

    Above EXACT_CLASSES it is one, s = p - onehot(y) with y drawn from p: right on average.
    """
    shares = logits.softmax(1)
    classes = shares.shape[1]
    if classes > EXACT_CLASSES:
        drawn = torch.multinomial(shares.cpu(), 1, generator=generator)[:, 0].to(shares.device)
        yield shares - nn.functional.one_hot(drawn, classes)
        return
    for index, one in enumerate(torch.eye(classes, device=shares.device)):
        yield shares[:, index : index + 1].sqrt() * (one - shares)
