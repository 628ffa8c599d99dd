"""SVD for linear layers and 1x1 convolutions, Tucker-2 for the other convolutions.

A matrix is cut to its first singular vectors, which no other matrix of that rank beats (Eckart & Young
1936). A kernel (out, in, h, w) is cut along its input and its output channels (Kim et al. 2016,
arXiv:1511.06530, section 3.1), each in turn while the other is cut (HOOI, De Lathauwer et al. 2000,
"On the best rank-1 and rank-(R1, …, RN) approximation", section 3.4).

Ranks stand in the order of the data's way: (rank,) for a matrix, (input rank, output rank) for a kernel.
"""

import math

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d
Ranks = tuple[int, ...]
OUT, IN = 0, 1
#: Sums in float64 that should be equal differ by less.
ROUNDING = 1e-12
#: More changes the error of trained kernels by less than a thousandth.
SWEEPS = 5


def can_decompose(module: nn.Module) -> bool:
    """Linear layers and convolutions whose channels are not in groups."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def full_ranks(layer: Layer) -> Ranks:
    """The ranks at which nothing is cut off."""
    return tuple(layer.weight.shape[dim] for dim in _dims(layer))


def energy_ranks(layer: Layer, energy: float) -> Ranks:
    """The smallest ranks that keep this share of the squared singular values, in each dimension alone."""
    ranks = (int((kept < energy - ROUNDING).sum()) + 1 for kept in kept_energies(layer))
    return tuple(map(min, ranks, full_ranks(layer)))


def kept_energies(layer: Layer) -> list[Tensor]:
    """For each dimension that is cut, the share of the squared singular values that every rank keeps."""
    squared = (_principal(_weight(layer), dim)[0] for dim in _dims(layer))
    return [values.cumsum(0) / values.sum() for values in squared]


def decompose(layer: Layer, ranks: Ranks) -> nn.Sequential:
    """Thin layers that together compute what `layer` does, up to what the ranks cut off.

    A side of a kernel with its full rank gets no layer of its own.
    """
    with torch.no_grad():
        thin = _two(layer, *ranks) if len(ranks) == 1 else _three(layer, *ranks)
    return nn.Sequential(*thin).to(layer.weight.device, layer.weight.dtype).train(layer.training)


def _is_matrix(layer: Layer) -> bool:
    return math.prod(layer.weight.shape[2:]) == 1


def _dims(layer: Layer) -> Ranks:
    """The dimensions of the weight that are cut; a matrix has the same singular values from both sides."""
    if _is_matrix(layer):
        return (OUT,) if layer.weight.shape[OUT] <= layer.weight.shape[IN] else (IN,)
    return IN, OUT


def _weight(layer: Layer) -> Tensor:
    return layer.weight.detach().double()


def _principal(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Squared singular values of the unfolding along `dim`, largest first, and its left singular vectors.

    weight: (out, in, …), float64. Returns (n,) and (n, n), a vector per column. From the Gram matrix, ten
    times faster than the SVD; what float64 rounds is below what float32 weights hold.
    """
    unfolded = weight.movedim(dim, 0).flatten(1)
    values, vectors = torch.linalg.eigh(unfolded @ unfolded.T)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _two(layer: Layer, rank: int) -> list[nn.Module]:
    """Both factors get the root of the singular values (Khodak et al. 2021, arXiv:2105.01029)."""
    weight = _weight(layer).flatten(1)
    (dim,) = _dims(layer)
    squared, vectors = _principal(weight, dim)
    vectors = vectors[:, :rank]
    left, right = (vectors, vectors.T @ weight) if dim == OUT else (weight @ vectors, vectors.T)
    root = squared[:rank].clamp(min=ROUNDING**2).pow(0.25 if dim == OUT else -0.25)
    return _thin(layer, left * root, right / root[:, None])


def _thin(layer: Layer, left: Tensor, right: Tensor) -> list[nn.Module]:
    """left: (out, rank), right: (rank, in). The first convolution strides, so that both are cheap."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first: Layer = nn.Linear(layer.in_features, right.shape[0], bias=False)
        last: Layer = nn.Linear(right.shape[0], layer.out_features, bias=bias)
    else:
        first = _like(layer, layer.in_channels, right.shape[0])
        last = nn.Conv2d(right.shape[0], layer.out_channels, 1, bias=bias)
    return [_filled(first, right), _filled(last, left, layer.bias)]


def _three(layer: Layer, rank_in: int, rank_out: int) -> list[nn.Module]:
    assert isinstance(layer, nn.Conv2d)
    weight, full_in, full_out = _weight(layer), rank_in == layer.in_channels, rank_out == layer.out_channels
    right, left = _bases(weight, rank_in, rank_out)
    core = torch.einsum("oihw,or,is->rshw", weight, left, right)
    bias = layer.bias if full_out else None
    thin: list[nn.Module] = [
        _filled(_like(layer, rank_in, rank_out, bias=bias is not None), core, bias),
    ]
    if not full_in:
        thin.insert(0, _filled(nn.Conv2d(layer.in_channels, rank_in, 1, bias=False), right.T))
    if not full_out:
        last = nn.Conv2d(rank_out, layer.out_channels, 1, bias=layer.bias is not None)
        thin.append(_filled(last, left, layer.bias))
    return thin


def _bases(weight: Tensor, rank_in: int, rank_out: int) -> tuple[Tensor, Tensor]:
    """Orthonormal columns that the input and the output channels are cut to; (in, rank), (out, rank)."""
    left = torch.eye(weight.shape[OUT], dtype=weight.dtype)
    for _ in range(SWEEPS):
        right = _basis(torch.einsum("oihw,or->rihw", weight, left), IN, rank_in)
        left = _basis(torch.einsum("oihw,ir->orhw", weight, right), OUT, rank_out)
    return right, left


def _basis(weight: Tensor, dim: int, rank: int) -> Tensor:
    """As it is where nothing is cut, so that this side needs no layer."""
    if rank == weight.shape[dim]:
        return torch.eye(rank, dtype=weight.dtype)
    return _principal(weight, dim)[1][:, :rank]


def _like(layer: nn.Conv2d, width_in: int, width_out: int, *, bias: bool = False) -> nn.Conv2d:
    """A convolution that looks at the same places."""
    return nn.Conv2d(
        width_in,
        width_out,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=layer.padding_mode,
    )


def _filled(layer: Layer, weight: Tensor, bias: Tensor | None = None) -> Layer:
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)
    return layer
