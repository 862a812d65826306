"""Uploads reserve their bytes, assets are limited in number, and the request rates of accounts are shared by the replicas."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Apply."""
    op.add_column("assets", sa.Column("reserved_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("assets", sa.Column("declared_bytes", sa.BigInteger(), nullable=True))
    op.add_column("accounts", sa.Column("max_assets", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("ck_accounts_max_assets"), "accounts", "max_assets >= 0")
    op.create_index(
        "ix_assets_quota",
        "assets",
        ["account_id"],
        postgresql_include=["size_bytes", "copy_bytes", "reserved_bytes"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "request_rates",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.Column("granted", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "service", name=op.f("pk_request_rates")),
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("request_rates")
    op.drop_index("ix_assets_quota", table_name="assets")
    op.drop_constraint(op.f("ck_accounts_max_assets"), "accounts", type_="check")
    op.drop_column("accounts", "max_assets")
    op.drop_column("assets", "declared_bytes")
    op.drop_column("assets", "reserved_bytes")
