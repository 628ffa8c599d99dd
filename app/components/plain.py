"""What a person or a file calls something, inside a label: shown as it is, never read as Markdown."""

_MARKS = frozenset("\\`*_[]:$<>#~|!()&")


def plain(text: str, most: int = 200) -> str:
    """At most that many characters."""
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(f"\\{letter}" if letter in _MARKS else letter for letter in text)
