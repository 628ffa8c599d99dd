"""analyses of a model as uploaded

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("analysis", schema=None) as batch_op:
        batch_op.alter_column("stage_id", existing_type=sa.String(length=200), nullable=True)
        batch_op.add_column(sa.Column("model_id", sa.String(length=200), nullable=True))
        batch_op.create_foreign_key(
            "fk_analysis_model_id_model", "model", ["model_id"], ["id"], ondelete="CASCADE"
        )
        batch_op.create_index("ix_analysis_model_id", ["model_id"], unique=False)


def downgrade() -> None:
    op.execute("DELETE FROM analysis WHERE stage_id IS NULL")
    with op.batch_alter_table("analysis", schema=None) as batch_op:
        batch_op.drop_index("ix_analysis_model_id")
        batch_op.drop_constraint("fk_analysis_model_id_model", type_="foreignkey")
        batch_op.drop_column("model_id")
        batch_op.alter_column("stage_id", existing_type=sa.String(length=200), nullable=False)
