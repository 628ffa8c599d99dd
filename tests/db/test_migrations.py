"""The migrations lead to the tables of `db/models.py`, also from a database that holds rows."""

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text

from db import analyses, runs
from db.models import Base
from db.session import MIGRATIONS, engine_for, migrate, reading, transaction
from tests.db.test_runs import STAGE, new_run


def test_nothing_is_missing_after_all_migrations(url: str) -> None:
    with engine_for(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_stages_of_before_parity_was_kept_stay(url: str) -> None:
    config = Config(attributes={"engine": engine_for(url)})
    config.set_main_option("script_location", str(MIGRATIONS))
    run_id = new_run(url)
    with transaction(url) as session:
        runs.save_stage(session, run_id, STAGE, [])
    command.downgrade(config, "0002")
    with engine_for(url).connect() as connection:
        assert "parity" not in connection.execute(text("SELECT * FROM stage")).mappings().one()
    migrate(url)
    with reading(url) as session:
        run = runs.whole(session, run_id)
    assert run is not None
    assert [(stage.notes, stage.parity) for stage in run.stages] == [(["n"], None)]


def test_analyses_of_stages_stay_and_those_of_models_need_their_column(url: str) -> None:
    config = Config(attributes={"engine": engine_for(url)})
    config.set_main_option("script_location", str(MIGRATIONS))
    run_id = new_run(url)
    with transaction(url) as session:
        run = runs.whole(session, run_id)
        assert run is not None
        stage_id, model_id = runs.save_stage(session, run_id, STAGE, []).id, run.experiment.model_id
        analyses.save(session, "profile", "stage", stage_id=stage_id, target={}, document={"kept": True})
        analyses.save(session, "blocks", "model", model_id=model_id, target={}, document={})
    command.downgrade(config, "0007")
    with engine_for(url).connect() as connection:
        (left,) = connection.execute(text("SELECT * FROM analysis")).mappings().all()
        assert (left["stage_id"], "model_id" in left) == (stage_id, False)
    migrate(url)
    with reading(url) as session:
        (found,) = analyses.of_stage(session, "profile", stage_id)
        assert (found.document, found.model_id) == ({"kept": True}, None)
