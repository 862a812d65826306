"""Generations: a history of requests for images, their groups, stars, cancels and progress."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

_FINAL = "state IN ('succeeded', 'failed', 'cancelled')"


def upgrade() -> None:
    """Apply."""
    op.add_column("generations", sa.Column("request", postgresql.JSONB(), nullable=True))
    op.add_column("generations", sa.Column("endpoint", sa.Text(), nullable=True))
    op.add_column("generations", sa.Column("group_id", sa.Text(), nullable=True))
    op.add_column("generations", sa.Column("grouping", postgresql.JSONB(), nullable=True))
    op.add_column("generations", sa.Column("position", sa.Integer(), server_default="0", nullable=False))
    op.add_column("generations", sa.Column("starred_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("generations", sa.Column("unstarred_at", sa.DateTime(timezone=True), nullable=True))
    _replace("state", "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')")
    _replace("finished", f"({_FINAL}) = (finished_at IS NOT NULL)")
    op.create_check_constraint(op.f("ck_generations_request"), "generations", "(request IS NULL) = (endpoint IS NULL)")
    op.create_index(
        "ix_generations_history", "generations", ["account_id", "id"], postgresql_where=sa.text("request IS NOT NULL")
    )
    op.create_index(
        op.f("ix_generations_group_id"), "generations", ["group_id"], postgresql_where=sa.text("group_id IS NOT NULL")
    )
    op.create_index(
        "ix_generations_starred",
        "generations",
        ["group_id"],
        postgresql_where=sa.text("starred_at IS NOT NULL AND group_id IS NOT NULL"),
    )
    op.create_table(
        "generation_progress",
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("preview", sa.LargeBinary(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("generation_id", name=op.f("pk_generation_progress")),
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("generation_progress")
    op.execute("DELETE FROM generations WHERE state = 'cancelled'")
    op.drop_index("ix_generations_starred", table_name="generations")
    op.drop_index(op.f("ix_generations_group_id"), table_name="generations")
    op.drop_index("ix_generations_history", table_name="generations")
    op.drop_constraint(op.f("ck_generations_request"), "generations", type_="check")
    _replace("finished", "(state IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)")
    _replace("state", "state IN ('queued', 'running', 'succeeded', 'failed')")
    for column in ("unstarred_at", "starred_at", "position", "grouping", "group_id", "endpoint", "request"):
        op.drop_column("generations", column)


def _replace(name: str, condition: str) -> None:
    op.drop_constraint(op.f(f"ck_generations_{name}"), "generations", type_="check")
    op.create_check_constraint(op.f(f"ck_generations_{name}"), "generations", condition)
