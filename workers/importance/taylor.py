"""How much the loss changes, to first order, when a weight becomes zero."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule

from workers.base import Context
from workers.graph.layer_roles import layer_weights
from workers.importance import Importance, calibration_batches, working_copy

#: The gradient of a trained net is nearly zero over the whole split; over a few samples it is not.
BATCH = 32


class Taylor(Importance):
    """|w · ∂L/∂w|, L being the mean cross-entropy of 32 samples; averaged over such batches."""

    title: ClassVar[str] = "Taylor, first order"
    source: ClassVar[str] = "Molchanov et al. 2019, Importance Estimation (arXiv:1906.10771), equation 8"

    def scores(self, graph: GraphModule, context: Context) -> dict[str, Tensor]:
        copy = working_copy(graph, context)
        weights = layer_weights(copy)
        sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        batches = 0
        for inputs, labels in calibration_batches(context, BATCH):
            loss = F.cross_entropy(copy(inputs), labels)
            gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                sums[name] += (weight * gradient).abs().detach()
            batches += 1
        return {name: (total / batches).float().cpu() for name, total in sums.items()}
