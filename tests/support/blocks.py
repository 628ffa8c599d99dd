"""The blocks of the sample experiment's model, as a worker would have timed them."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import analyses
from db.models import Experiment
from workers.work.blocks import KIND, about

TARGET = {"host": "3f2a91bc", "device": "cpu", "runtime": "onnxruntime", "version": "1.32.0"}
#: Between sixteen equal blocks; a head takes 2 %.
NAMES = tuple(f"relu_{number}" for number in range(1, 16))


def keep(
    session: Session,
    experiment: str,
    *,
    names: Sequence[str] = NAMES,
    head: str = "auto",
    runtime: str = "onnxruntime",
) -> None:
    row = session.get_one(Experiment, experiment)
    asked = about(row.model, row.dataset, head, runtime)
    spots = [
        {"name": name, "share": number / (len(names) + 1), "head": 0.02}
        for number, name in enumerate(names, start=1)
    ]
    analyses.save(
        session, KIND, f"{head} {runtime}", model_id=row.model_id, target=TARGET,
        document={"about": asked, "spots": spots},
    )  # fmt: skip
