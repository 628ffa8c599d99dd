"""Small networks, each written to meet branches of the rebuilding that the others do not."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """In-place activations read elsewhere, in-place residual adds, squeeze-and-excitation, concat, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding="same")
        self.bn2 = nn.BatchNorm2d(8, affine=False)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        y = self.relu(x)
        out = self.bn2(self.conv2(y))
        out += x  # x was changed by the activation
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(out, 1)))))
        out = self.pool(out * gate)
        out = torch.cat([out, F.avg_pool2d(y, 2)], 1)
        return self.fc(F.dropout(out.mean((2, 3)), 0.5, self.training))  # type: ignore[no-any-return]


class Kinds(nn.Module):
    """One of each layer kind: grouped, depthwise, transposed, padded convolutions, norms, activations."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
            nn.GroupNorm(2, 8),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ELU(inplace=True),
            nn.Conv2d(8, 8, (3, 1), stride=(1, 2), padding=(1, 0), groups=2),
            nn.SiLU(),
            nn.ConvTranspose2d(8, 6, 2, stride=2),
            nn.Mish(),
            nn.Conv2d(6, 6, 3, dilation=2, padding="same", bias=False),
            nn.BatchNorm2d(6),
            nn.Hardswish(inplace=True),
            nn.Dropout2d(0.5),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Hardtanh(-2, 3),
            nn.ReLU6(inplace=True),
            nn.AdaptiveMaxPool2d(2),
        )
        self.along = nn.Conv1d(6, 8, 3, padding=1)
        self.bn = nn.BatchNorm1d(8)
        self.head = nn.Sequential(
            nn.GELU("tanh"), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.along(self.body(x).flatten(2)))
        return self.head(torch.sigmoid(x).amax(2))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """A transformer block: patches, a class token, positions, attention, a feed-forward unit."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 17, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(16, 4, dropout=0.1, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.ffn(self.norm2(x)))[:, 0])  # type: ignore[no-any-return]


class Shared(nn.Module):
    """A layer used twice, tied weights, computed weights, constants, frozen weights, odd names."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3])[:, None, None])
        self.direction = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.length = nn.Parameter(torch.rand(8, 1, 1, 1) + 0.5)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.other.weight = self.one.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.heads = nn.ModuleDict({"class": nn.Linear(8, 8), "graph": nn.Linear(8, 3)})

    def forward(self, x: Tensor) -> Tensor:
        weight = self.length * self.direction / self.direction.square().sum((1, 2, 3), keepdim=True).sqrt()
        x = F.conv2d(x - self.mean, weight, padding=1)
        x = self.twice(F.relu(self.twice(x))).mean((2, 3))
        x = self.frozen(self.other(torch.tanh(self.one(x))))
        return self.heads["graph"](self.heads["class"](x))  # type: ignore[no-any-return]


class Holder(nn.Module):
    """Layers whose weights lie next to other things, so that the layer cannot simply take their place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 1, 1))
        self.block = _Block()
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mul_(2.0)  # changes its own input
        return self.fc(self.block(F.conv2d(x, self.weight)).mean((2, 3)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, 1, 1))
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.conv2d(x, self.weight)) + x  # type: ignore[no-any-return]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind for kind in (Residual, Kinds, Attention, Shared, Holder)
}


def trained(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """In evaluation mode, with weights and statistics that are not the trivial ones of a fresh module."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return net.eval()
