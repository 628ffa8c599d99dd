import pytest

from workers.quantization.scheme import scheme_for

INT16 = 2**15 - 1


@pytest.mark.parametrize(
    ("machine", "vnni", "reduced"),
    [
        ("x86_64", False, True),
        ("AMD64", False, True),
        ("x86_64", True, False),
        ("aarch64", False, False),
        ("arm64", False, False),
    ],
)
def test_seven_bits_only_where_sixteen_would_overflow(machine: str, vnni: bool, reduced: bool) -> None:
    assert scheme_for(machine, vnni=vnni).reduce_range is reduced


def test_two_products_of_the_reduced_range_fit_into_sixteen_bits() -> None:
    """What vpmaddubsw adds before it saturates; with the full range they do not fit."""
    assert 2 * 255 * scheme_for("x86_64", vnni=False).weight_limit <= INT16
    assert 2 * 255 * scheme_for("x86_64", vnni=True).weight_limit > INT16
