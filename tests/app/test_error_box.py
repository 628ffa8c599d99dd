"""Lines to copy are told from the sentence before them, and can be run as they are."""

import ast
from pathlib import Path

import pytest
import torch

from app.components.error_box import split_code
from workers.errors import ModelRefused
from workers.graph.weights import read_weights


def test_what_converts_a_whole_pickle_is_code_as_it_stands(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ModelRefused) as caught:
        read_weights(tmp_path / "whole.pt")
    sentence, code = split_code(caught.value.fix)
    assert sentence.endswith("needs no class:")
    assert len(ast.parse(code).body) == 4  # indented lines would not be a program


@pytest.mark.parametrize(
    ("fix", "parts"),
    [
        ("Give the path.", ("Give the path.", "")),
        ("Save it: torch.save(m, 'w.pt').", ("Save it:", "torch.save(m, 'w.pt')")),
        ("Do:\n\n    a = 1\n    b = 2", ("Do:", "a = 1\nb = 2")),
    ],
)
def test_advice_and_code(fix: str, parts: tuple[str, str]) -> None:
    assert split_code(fix) == parts
