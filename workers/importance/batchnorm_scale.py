"""The factor that BatchNorm gives a channel."""

from typing import ClassVar

from torch import Tensor, nn
from torch.fx import GraphModule

from workers.errors import StepFailed
from workers.graph.layer_roles import LAYERS
from workers.importance import OfWeights


class BatchNormScale(OfWeights):
    """|γ| of the BatchNorm right behind a layer, spread evenly over the weights of the channel it scales.

    Layers without BatchNorm behind them are not judged.
    """

    title: ClassVar[str] = "BatchNorm scale"
    source: ClassVar[str] = "Liu et al. 2017, Network Slimming (arXiv:1708.06519), section 3"

    def of_weights(self, graph: GraphModule, seed: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Raises StepFailed when no layer has a BatchNorm with a scale behind it."""
        modules = dict(graph.named_modules())
        found = {}
        for node in graph.graph.nodes:
            if node.op != "call_module" or not isinstance(
                modules[node.target], nn.modules.batchnorm._BatchNorm
            ):
                continue
            before, scale = node.args[0], modules[node.target].weight
            if scale is None or before.op != "call_module":
                continue
            layer = modules[before.target]
            if isinstance(layer, LAYERS):
                shares = scale.detach().abs().float().cpu() / layer.weight[0].numel()
                shape = (-1, *[1] * (layer.weight.dim() - 1))
                found[f"{before.target}.weight"] = shares.view(shape).expand(layer.weight.shape).clone()
        if not found:
            raise StepFailed(
                "importance batchnorm_scale",
                "no layer of this model has a BatchNorm behind it.",
                "Take l2 or taylor.",
            )
        return found
