"""analyses of a stage

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

REFERRED = (("project_id", "project", None), ("created_by", "person", None), ("stage_id", "stage", "CASCADE"))


def upgrade() -> None:
    words = ("id", "project_id", "created_by", "kind", "key", "stage_id")
    op.create_table(
        "analysis",
        *(sa.Column(word, sa.String(length=200), nullable=False) for word in words),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{table}.id"], name=f"fk_analysis_{column}_{table}", ondelete=end
            )
            for column, table, end in REFERRED
        ),
        sa.PrimaryKeyConstraint("id", name="pk_analysis"),
        sa.UniqueConstraint("kind", "key", name="uq_analysis_kind_key"),
    )
    with op.batch_alter_table("analysis", schema=None) as batch_op:
        for column in ("project_id", "stage_id"):
            batch_op.create_index(f"ix_analysis_{column}", [column], unique=False)


def downgrade() -> None:
    op.drop_table("analysis")
