"""Scores written by hand, so that it is known which channels must go."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.pruning.choosing import Scope, choose
from workers.pruning.groups import Group


def group(name: str, scores: list[float], parts: int = 1) -> Group:
    return Group(name, (name,), len(scores) * parts, parts, torch.tensor(scores, dtype=torch.float32))


def test_uniform_takes_the_weakest_of_every_group() -> None:
    groups = [group("a", [3, 1, 2, 4]), group("b", [10, 40, 20, 30, 5, 6, 7, 8])]
    assert choose(groups, 0.5, "uniform", 1) == {"a": [1, 2], "b": [4, 5, 6, 7]}


def test_global_takes_the_weakest_of_the_network_after_dividing_by_the_mean() -> None:
    """The scores of b are a hundred times smaller, but all alike: only a has channels far below its mean."""
    groups = [group("a", [1, 1, 1, 1, 3, 3, 3, 3]), group("b", [0.01] * 8)]
    assert choose(groups, 0.25, "global", 1) == {"a": [0, 1, 2, 3], "b": []}
    assert choose(groups, 0.25, "uniform", 1) == {"a": [0, 1], "b": [0, 1]}


def test_a_width_is_rounded_and_never_zero() -> None:
    groups = [group("a", [0.0] * 16), group("b", [float(i + 1) for i in range(16)])]
    scopes: tuple[Scope, ...] = ("uniform", "global")
    for scope in scopes:
        assert [len(gone) for gone in choose(groups, 0.99, scope, 4).values()] == [12, 12]
    assert [len(gone) for gone in choose(groups, 0.3, "uniform", 8).values()] == [8, 8]


def test_parts_lose_the_same_channels() -> None:
    assert choose([group("a", [4, 1, 2, 3], parts=2)], 0.5, "uniform", 1) == {"a": [1, 2, 5, 6]}
    # A width must be a multiple of both 2 parts and 3: 6 of 8 stay.
    assert choose([group("a", [4, 1, 2, 3], parts=2)], 0.3, "uniform", 3) == {"a": [1, 5]}


def test_groups_without_scores_stay_whole() -> None:
    unjudged = Group("b", ("b",), 8, 1, torch.empty(0))
    assert choose([group("a", [1, 2]), unjudged], 0.5, "global", 1) == {"a": [0]}


@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    parts=st.integers(1, 3),
    share=st.floats(0, 0.999),
    scope=st.sampled_from(["uniform", "global"]),
    round_to=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_what_stays_is_a_multiple_or_the_whole(
    widths: list[int], parts: int, share: float, scope: Scope, round_to: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = [group(str(i), torch.rand(w, generator=generator).tolist(), parts) for i, w in enumerate(widths)]
    for found, gone in zip(groups, choose(groups, share, scope, round_to).values(), strict=True):
        stays = found.width - len(gone)
        assert len(set(gone)) == len(gone)
        assert stays == found.width or (stays > 0 and stays % round_to == 0 and stays % parts == 0)
