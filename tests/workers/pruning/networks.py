"""Small networks with every kind of coupling between channels, and what is checked of them."""

import torch
from torch import Tensor, fx, nn

from workers.base import Candidate, ImagePreprocessing, ModelSpec

PREPROCESSING = ImagePreprocessing(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,))
SPEC = ModelSpec(name="net", sha256="0" * 64, architecture=None, classes=3, preprocessing=PREPROCESSING)


def chain(first: int = 32, second: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(second, 3),
    )


def chain_macs(first: int, second: int) -> int:
    return 9 * 64 * first + 9 * 16 * first * second + 3 * second


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.norm, self.fc = nn.BatchNorm2d(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.b(torch.relu(self.norm(self.a(x)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Grouped(nn.Module):
    """An inverted residual with a depthwise convolution and squeeze-and-excitation; then two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 1)
        self.depthwise, self.project = nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 16, 1)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.grouped, self.fc = nn.Conv2d(16, 32, 3, groups=2), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = nn.functional.silu(self.depthwise(nn.functional.hardswish(self.expand(x))))
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = torch.relu(self.grouped(x + self.project(y)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Dense(nn.Module):
    """Concatenation, flattened into the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 24, 1), nn.Conv2d(40, 16, 1)
        self.norm, self.fc = nn.BatchNorm2d(40), nn.Linear(16 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = torch.relu(self.norm(torch.cat([x, self.b(torch.relu(x))], 1)))
        logits: Tensor = self.fc(self.c(x).flatten(1))
        return logits


class Transformer(nn.Module):
    """Patches, attention and a feed-forward block; `cut` is how the heads are told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norms = nn.Conv2d(1, 32, 2, 2), nn.ModuleList([nn.LayerNorm(32) for _ in range(3)])
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norms[0](x)).view(x.shape[0], 16, 3, 4, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.proj(mixed.transpose(1, 2).reshape(x.shape[0], 16, -1))
        x = x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))
        logits: Tensor = self.head(self.norms[2](x).mean(1))
        return logits


class Shuffled(nn.Module):
    """A channel shuffle that runs with any width, so that only the numbers tell what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
        self.c, self.fc = nn.Conv2d(32, 32, 1), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = x.view(x.shape[0], 2, -1, 8, 8).transpose(1, 2).reshape(x.shape[0], -1, 8, 8)
        logits: Tensor = self.fc(self.c(torch.relu(self.b(x))).mean((2, 3)))
        return logits


def graph_of(net: nn.Module) -> fx.GraphModule:
    return fx.symbolic_trace(net).eval()


def model_of(net: nn.Module) -> Candidate:
    return Candidate(SPEC, graph_of(net))


def widths(graph: nn.Module) -> dict[str, int]:
    return {
        name: module.weight.shape[0]
        for name, module in graph.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def trains(graph: fx.GraphModule) -> bool:
    """Forward and backward at a batch size of its own; every weight gets a gradient."""
    logits = graph.train()(torch.randn(5, 1, 8, 8))
    logits.square().sum().backward()
    return logits.shape == (5, 3) and all(p.grad is not None for p in graph.parameters())
