"""exits of a stage, and variants with other thresholds

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STAGE = ("exits_sha256", "exit_logits_sha256")
VARIANT = ("file_sha256", "answers_sha256", "exits_sha256")


def upgrade() -> None:
    for table, columns in (("stage", STAGE), ("variant", VARIANT)):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in columns:
                batch_op.add_column(sa.Column(column, sa.String(length=200), nullable=True))
    with op.batch_alter_table("variant", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parity", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("variant", schema=None) as batch_op:
        batch_op.drop_column("parity")
    for table, columns in (("variant", VARIANT), ("stage", STAGE)):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in columns:
                batch_op.drop_column(column)
