"""What should be tried? A recipe for a model and a dataset, queued."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from json import dumps

import streamlit as st

import app.session
from app.components.error_box import error_box
from app.components.estimate_panel import estimate_panel
from app.components.exits_field import exits_field
from app.components.linked import linked_choice
from app.components.recipe_chain import recipe_chain
from app.components.runtime_choice import place_choice
from app.components.teacher_field import teacher_field
from app.place import place_of
from app.predicting import outlook
from app.queueing import queue_runs
from app.recipes import AMOUNTS, Plain, has_amount, needs_graph, refusal, with_amount
from db import datasets, models_, runs, variants, workers
from db.models import Dataset, Model
from workers.places import USUAL, of_steps


@dataclass(frozen=True)
class _Asked:
    """experiment: of the pair; None before its first run. target: a machine that has a name, or empty."""

    model: Model
    dataset: Dataset
    experiment: str | None
    recipe: Plain
    runtime: str
    target: str

    @property
    def trainable(self) -> bool:
        return (self.model.file_name or "").endswith(".pt2")

    @property
    def can_run(self) -> bool:
        return self.trainable or not needs_graph(self.recipe)


def main() -> None:
    st.title("New run")
    with app.session.reading() as session:
        models = [m for m in models_.all_of(session) if m.file_sha256]
        data = [d for d in datasets.all_of(session) if d.sha256]
        online, present = workers.online_queues(session), workers.online(session)
        targets = workers.targets(session)
        pair = {(e.model_id, e.dataset_id): e.id for e in runs.experiments(session)}
    if not models or not data:
        return _empty(bool(models), bool(data))
    left, right = st.columns([3, 2], gap="medium")
    with left:
        model, dataset = _choose(models, data)
        target, runtime = place_choice(st.container(), present, targets)
        timed_in = USUAL if target else of_steps(runtime)
        exits = partial(exits_field, model, dataset, timed_in)
        teacher = partial(teacher_field, models)
        recipe = recipe_chain({"early_exit": {"exits": exits}, "distillation": {"teacher_model": teacher}})
    asked = _Asked(model, dataset, pair.get((model.id, dataset.id)), recipe, runtime, target)
    with right, st.container(key="expect"):  # stays in sight, see look.css
        refused = refusal(recipe)
        if refused:
            error_box(refused)  # of a recipe that cannot be read nothing can be expected
        else:
            _expect(asked, online)
        _queue(asked, blocked=refused is not None or not asked.can_run)
        if asked.experiment is not None and asked.trainable and not refused:
            st.page_link(
                "views/sensitivity.py", label="Sensitivity of its layers", icon=":material/vital_signs:",
                query_params={"experiment": asked.experiment, "recipe": dumps(recipe), "runtime": runtime}
                | ({"machine": target} if target else {}),
            )  # fmt: skip
    return None


def _expect(asked: _Asked, online: set[str]) -> None:
    with app.session.reading() as session:
        measured = variants.baseline_numbers(session, asked.experiment or "")
    facts = asked.model.facts or {}
    known = {name: measured.get(name, facts.get(name)) for name in ("macs", "parameters", "size")}
    place = place_of(asked.target, asked.runtime, asked.recipe, online)
    expected = outlook(asked.model, asked.dataset, asked.experiment, asked.recipe, place, online)
    estimate_panel(asked.recipe, known, expected, place, trainable=asked.trainable, online=online)


def _empty(has_model: bool, has_data: bool) -> None:
    missing = " and ".join(
        what for what, there in (("a model", has_model), ("a dataset", has_data)) if not there
    )
    st.info(f"A run needs {missing} first. Bring what is missing, and wait until it is checked.")
    if not has_model:
        st.page_link("views/models.py", label="Models", icon=":material/deployed_code:")
    if not has_data:
        st.page_link("views/data.py", label="Data", icon=":material/photo_library:")


def _choose(models: Sequence[Model], data: Sequence[Dataset]) -> tuple[Model, Dataset]:
    """The pair of the URL, else the newest ones."""
    left, right = st.columns(2)
    model = linked_choice(left, "Model", {m.id: m.name for m in models}, key="model")
    dataset = linked_choice(right, "Dataset", {d.id: d.name for d in data}, key="dataset")
    return next(m for m in models if m.id == model), next(d for d in data if d.id == dataset)


def _queue(asked: _Asked, *, blocked: bool) -> None:
    recipe, wanted = asked.recipe, None
    if st.button("Queue run", type="primary", width="stretch", disabled=blocked):
        wanted = [recipe]
    told = "30, 50 and 70 %: a curve, not a point."
    if has_amount(recipe) and st.button("Queue with 3 amounts", width="stretch", disabled=blocked, help=told):
        wanted = [with_amount(recipe, amount) for amount in AMOUNTS]
    if wanted:
        pair = (asked.model.id, asked.dataset.id)
        queued = queue_runs(*pair, wanted, runtime=asked.runtime, target=asked.target)
        only = {"run": queued[0]} if len(queued) == 1 else None
        st.switch_page("views/runs.py", query_params=only)


main()
