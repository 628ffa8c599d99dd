"""Two uploads of the same name can be told apart, on both databases."""

from db import datasets, models_
from db.session import transaction


def test_a_name_that_is_taken_gets_a_number_before_its_ending(url: str) -> None:
    with transaction(url) as session:
        names = [models_.add(session, name=name, upload_sha256="").name for name in 3 * ["net.pt2"] + ["net"]]
        data = [datasets.add(session, name="net.pt2", source="a", upload_sha256=None).name]
    assert names == ["net.pt2", "net (2).pt2", "net (3).pt2", "net"]
    assert data == ["net.pt2"]
