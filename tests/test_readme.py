"""The README says what is there."""

import re
from pathlib import Path

from app.cli import app
from db.settings import Settings
from workers.catalog import METHODS

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_method_has_its_line() -> None:
    for name in METHODS:
        assert f"| `{name}` |" in README


def test_every_command_is_named() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"paredown {command.callback.__name__}" in README


def test_settings_table_is_that_of_the_settings_class() -> None:
    for name, field in Settings.model_fields.items():
        row = f"| `PAREDOWN_{name.upper()}` | `{field.default}` | {field.description} |"
        assert row in README


def test_every_path_of_the_layout_exists() -> None:
    layout = README.split("## Layout")[1].split("```")[1]
    names = re.findall(r"(?<!\S)([a-z]+(?:/|\.py))(?=\s)", layout)
    assert len(names) > 15
    root = Path(__file__).parents[1]
    for name in names:
        assert any((root / folder / name).exists() for folder in ("", "app", "workers", "db", "tests")), name
