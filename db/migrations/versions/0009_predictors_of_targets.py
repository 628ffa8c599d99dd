"""predictors of machines that have a name

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BEFORE, AFTER = ["model_id", "code"], ["model_id", "code", "target"]


def upgrade() -> None:
    with op.batch_alter_table("predictor", schema=None) as batch_op:
        batch_op.add_column(sa.Column("target", sa.String(length=200), nullable=False, server_default=""))
        batch_op.drop_constraint("uq_predictor_model_id_code", type_="unique")
        batch_op.create_unique_constraint("uq_predictor_model_id_code_target", AFTER)


def downgrade() -> None:
    op.execute("DELETE FROM predictor WHERE target <> ''")
    with op.batch_alter_table("predictor", schema=None) as batch_op:
        batch_op.drop_constraint("uq_predictor_model_id_code_target", type_="unique")
        batch_op.create_unique_constraint("uq_predictor_model_id_code", BEFORE)
        batch_op.drop_column("target")
