"""The console: browsers that are signed in, the codes that sign them in, and datasets that are prepared for a tune."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

NOW = sa.text("now()")


def upgrade() -> None:
    """Apply."""
    for table, column in (("logins", "token_sha256"), ("login_codes", "code_sha256")):
        op.create_table(
            table,
            sa.Column(column, sa.LargeBinary(), nullable=False),
            sa.Column("key_id", sa.Text(), nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
            sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
            sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f(f"fk_{table}_key_id_api_keys")),
            sa.PrimaryKeyConstraint(column, name=op.f(f"pk_{table}")),
        )
        op.create_index(op.f(f"ix_{table}_expires_at"), table, ["expires_at"])
    op.add_column("logins", sa.Column("seen_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False))
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("trigger_word", sa.Text(), nullable=False),
        sa.Column("subject_class", sa.Text(), nullable=False),
        sa.Column("files", postgresql.JSONB(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_datasets_version")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_datasets_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index("ix_datasets_changed", "datasets", ["account_id", "updated_at"])
    op.add_column("tunes", sa.Column("dataset_id", sa.Text(), nullable=True))
    op.create_index(
        op.f("ix_tunes_dataset_id"), "tunes", ["dataset_id"], postgresql_where=sa.text("dataset_id IS NOT NULL")
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_tunes_dataset_id"), table_name="tunes")
    op.drop_column("tunes", "dataset_id")
    for table in ("datasets", "login_codes", "logins"):
        op.drop_table(table)
