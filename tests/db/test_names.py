"""Two uploads of the same name can be told apart, on both databases."""

from db import datasets, models_
from db.session import transaction


def test_a_name_that_is_taken_gets_a_number_before_its_ending(url: str) -> None:
    with transaction(url) as session:
        names = [models_.add(session, name=name, upload_sha256="").name for name in 3 * ["net.pt2"] + ["net"]]
        data = [datasets.add(session, name="net.pt2", source="a", upload_sha256=None).name]
    assert names == ["net.pt2", "net (2).pt2", "net (3).pt2", "net"]
    assert data == ["net.pt2"]


def test_a_name_as_long_as_its_column_gets_its_number_too(url: str) -> None:
    for ending in (".pt2", f".{'z' * 190}"):
        stem = "x" * (200 - len(ending))
        with transaction(url) as session:
            names = [models_.add(session, name=stem + ending, upload_sha256="").name for _ in range(3)]
        assert len(set(names)) == 3
        assert {len(name) for name in names} == {200}
        kept = ending if ending == ".pt2" else ""
        assert names[1:] == [
            f"{(stem + ending).removesuffix(kept)[: 196 - len(kept)]} ({n}){kept}" for n in (2, 3)
        ]
