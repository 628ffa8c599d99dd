"""what the latency of recipes is guessed from

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "predictor",
        sa.Column("model_id", sa.String(length=200), nullable=False),
        sa.Column("code", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=True),
        sa.Column("table", sa.JSON(), nullable=True),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("project_id", sa.String(length=200), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_predictor_model_id_model"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_predictor_project_id_project")),
        sa.ForeignKeyConstraint(["created_by"], ["person.id"], name=op.f("fk_predictor_created_by_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictor")),
        sa.UniqueConstraint("model_id", "code", name=op.f("uq_predictor_model_id_code")),
    )
    for column in ("key", "project_id"):
        op.create_index(op.f(f"ix_predictor_{column}"), "predictor", [column])


def downgrade() -> None:
    op.drop_table("predictor")
