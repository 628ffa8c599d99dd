"""Against NumPy's SVD and against what is proven of a truncated one; kernels are read off as the answer to
single pixels, so no formula of the code is repeated here.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workers.factors.decompose import can_decompose, decompose, energy_ranks, full_ranks

#: Squares 16, 4, 4, 1: the shares that the first ones hold are 0.64, 0.8, 0.96, 1.
SPECTRUM = (4.0, 2.0, 2.0, 1.0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def weight_of(module: nn.Module, inputs: int) -> Tensor:
    """What it answers to a one in each input, in the middle of an otherwise empty picture; no bias."""
    linear = isinstance(module, nn.Linear) or isinstance(next(iter(module.children()), None), nn.Linear)
    ones = (
        torch.eye(inputs) if linear else nn.functional.pad(torch.eye(inputs)[..., None, None], (2, 2, 2, 2))
    )
    with torch.no_grad():
        answer: Tensor = module(ones) - module(0 * ones)
    return answer


def squared_error(layer: nn.Module, ranks: tuple[int, ...], inputs: int) -> float:
    thin = decompose(layer, ranks)  # type: ignore[arg-type]
    return float((weight_of(layer, inputs) - weight_of(thin, inputs)).square().sum())


def tail(unfolding: Tensor, rank: int) -> float:
    """Sum of the squared singular values that a cut to `rank` loses."""
    values = np.linalg.svd(unfolding.detach().double().numpy(), compute_uv=False)
    return float((values[rank:] ** 2).sum())


def with_spectrum(rows: int, columns: int) -> Tensor:
    left, right = (torch.linalg.qr(torch.randn(size, 4, dtype=torch.float64))[0] for size in (rows, columns))
    return torch.einsum("ri,i,ci->rc", left, torch.tensor(SPECTRUM).double(), right).float()


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 10), nn.Linear(10, 6, bias=False), nn.Conv2d(6, 9, 1), nn.Conv2d(9, 6, 1)]
)
def test_a_matrix_loses_the_tail_of_its_singular_values(layer: nn.Linear | nn.Conv2d, rank: int) -> None:
    """Eckart and Young 1936: no matrix of that rank is nearer."""
    expected = tail(layer.weight.flatten(1), rank)
    assert squared_error(layer, (rank,), layer.weight.shape[1]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("ranks", [(1, 1), (2, 5), (6, 3), (4, 9), (6, 9)])
def test_a_kernel_loses_no_more_than_both_tails(ranks: tuple[int, int]) -> None:
    """Each tail alone is less than any kernel of these ranks loses; both together are De Lathauwer's bound
    for the truncated HOSVD (2000, property 10)."""
    layer = nn.Conv2d(6, 9, 3, padding=1)
    tails = [
        tail(layer.weight.movedim(dim, 0).flatten(1), rank) for dim, rank in zip((1, 0), ranks, strict=True)
    ]
    assert max(tails) * 0.9999 <= squared_error(layer, ranks, 6) + 1e-9
    assert squared_error(layer, ranks, 6) <= sum(tails) * 1.0001 + 1e-9


@pytest.mark.parametrize("ranks", [(2, 5), (4, 4), (6, 3)])
def test_a_kernel_is_cut_as_well_as_one_sweep_after_another_can(ranks: tuple[int, int]) -> None:
    """HOOI in NumPy with its SVD, until nothing changes any more."""
    layer = nn.Conv2d(6, 9, 3)
    weight = layer.weight.detach().double().numpy()
    left = np.eye(9)
    for _ in range(300):
        seen = np.einsum("oihw,or->irhw", weight, left).reshape(6, -1)
        right = np.linalg.svd(seen, full_matrices=False)[0][:, : ranks[0]]
        seen = np.einsum("oihw,ir->orhw", weight, right).reshape(9, -1)
        left = np.linalg.svd(seen, full_matrices=False)[0][:, : ranks[1]]
    core = np.einsum("oihw,or,is->rshw", weight, left, right)
    best = float((weight**2).sum() - (core**2).sum())
    assert squared_error(layer, ranks, 6) <= 1.01 * best


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": (1, 3), "padding": (0, 1), "stride": (2, 1)},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 5, "padding": 2, "padding_mode": "circular"},
        {"kernel_size": 1, "stride": 2},
    ],
)
def test_what_has_the_rank_stays_the_same(options: dict[str, object]) -> None:
    """A kernel built of 3 input and 4 output patterns; the thin layers look at the same places."""
    layer = nn.Conv2d(8, 10, **options)  # type: ignore[arg-type]
    core = torch.randn(4, 3, *layer.kernel_size)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("abhw,oa,ib->oihw", core, torch.randn(10, 4), torch.randn(8, 3)))
    thin = decompose(layer, (3,) if options["kernel_size"] == 1 else (3, 4))
    inputs = torch.randn(2, 8, 11, 9)
    torch.testing.assert_close(thin(inputs), layer(inputs), rtol=1e-4, atol=1e-4)
    assert sum(part.weight.numel() for part in thin) < layer.weight.numel()  # type: ignore[operator,misc]


def test_a_full_side_needs_no_layer_and_loses_nothing() -> None:
    layer, inputs = nn.Conv2d(3, 8, 3, stride=2), torch.randn(2, 3, 9, 9)
    assert full_ranks(layer) == (3, 8)
    for ranks, kernels in (
        ((3, 8), [(8, 3, 3, 3)]),
        ((3, 2), [(2, 3, 3, 3), (8, 2, 1, 1)]),
        ((2, 8), [(2, 3, 1, 1), (8, 2, 3, 3)]),
    ):
        thin = decompose(layer, ranks)
        assert [tuple(part.weight.shape) for part in thin] == kernels  # type: ignore[arg-type]
        if ranks == (3, 8):
            torch.testing.assert_close(thin(inputs), layer(inputs))


@pytest.mark.parametrize(
    ("energy", "rank"), [(0.5, 1), (0.64, 1), (0.65, 2), (0.8, 2), (0.81, 3), (0.96, 3), (0.97, 4)]
)
def test_the_energy_gives_the_rank(energy: float, rank: int) -> None:
    kernel = nn.Conv2d(7, 9, 3)
    with torch.no_grad():
        kernel.weight.zero_()
        kernel.weight[:, :, 2, 0] = with_spectrum(9, 7)
    assert energy_ranks(kernel, energy - 1e-7) == (rank, rank)
    for shape in ((9, 7), (7, 9)):
        linear = nn.Linear(shape[1], shape[0])
        with torch.no_grad():
            linear.weight.copy_(with_spectrum(*shape))
        assert energy_ranks(linear, energy - 1e-7) == (rank,)


def test_a_share_that_is_met_exactly_needs_no_further_rank() -> None:
    linear = nn.Linear(4, 4)
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.tensor(SPECTRUM)))
    assert [energy_ranks(linear, share) for share in (0.64, 0.8, 0.96)] == [(1,), (2,), (3,)]


def test_weights_that_are_zero_stay_zero() -> None:
    for layer, ranks in ((nn.Linear(4, 4), (2,)), (nn.Conv2d(4, 4, 3), (2, 2))):
        with torch.no_grad():
            layer.weight.zero_()
        assert len(energy_ranks(layer, 0.9)) == len(ranks)
        assert all(not part.weight.any() or part.weight.isfinite().all() for part in decompose(layer, ranks))  # type: ignore[operator]


def test_the_factors_of_a_matrix_are_of_equal_size() -> None:
    """Khodak et al. 2021: weight decay and learning rate then treat both alike."""
    for layer in (nn.Linear(6, 10), nn.Linear(10, 6)):
        first, last = decompose(layer, (3,))
        torch.testing.assert_close(first.weight.norm(dim=1), last.weight.norm(dim=0))  # type: ignore[operator]


def test_channels_in_groups_are_left_alone() -> None:
    assert not can_decompose(nn.Conv2d(4, 4, 3, groups=2))
    assert not can_decompose(nn.BatchNorm2d(4))
    assert can_decompose(nn.Conv2d(4, 4, 3))
    assert can_decompose(nn.Linear(4, 4))
