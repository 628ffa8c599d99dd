import pytest

from app.terminal import _count, _ratio, printable, show_error
from workers.base import Measurement


def number(value: float | None, low: float | None = None, high: float | None = None) -> Measurement:
    return Measurement(name="n", value=value, low=low, high=high, unit="u", better="lower")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not known"),
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (1234, "1.23 k"),
        (999_400, "999 k"),
        (999_600, "1 M"),
        (37_200_000, "37.2 M"),
        (1.5e9, "1.5 G"),
    ],
)
def test_counts_have_three_digits(value: float | None, text: str) -> None:
    assert _count(number(value)) == text


def test_a_ratio_is_told_as_faster_or_slower() -> None:
    assert _ratio(number(0.5, 0.4, 0.8)) == "2.00x faster (1.25–2.50)"
    assert _ratio(number(1.5, 1.4, 1.6)) == "1.50x slower (1.40–1.60)"
    assert _ratio(number(0.5)) == "2.00x faster"
    marked = number(0.5, 0.5, 0.5).model_copy(update={"marks": ("contended",)})
    assert _ratio(marked).endswith(", contended")


def test_an_error_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """No markup, no emoji codes, no line breaks of our own."""
    text = "[bold]model[/bold].pt: :warning: " + "x" * 300
    show_error(text)
    assert capsys.readouterr().err == f"Error {text}\n"


def test_a_name_that_is_no_text_can_be_printed() -> None:
    assert printable("a\udcffé") == "a?é"
