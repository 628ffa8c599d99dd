"""Alembic's entry: runs the migrations on the engine that `db.session.migrate` hands over."""

from alembic import context

from db.models import Base

with context.config.attributes["engine"].begin() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()
