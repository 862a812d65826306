"""Limits of accounts, and answers to requests with an Idempotency-Key."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"

LIMITS = {
    "max_requests_per_minute": sa.Integer(),
    "max_unfinished_tunes": sa.Integer(),
    "max_images_in_flight": sa.Integer(),
    "max_stored_bytes": sa.BigInteger(),
}


def upgrade() -> None:
    """Apply."""
    for limit, kind in LIMITS.items():
        op.add_column("accounts", sa.Column(limit, kind, nullable=True))
        op.create_check_constraint(op.f(f"ck_accounts_{limit}"), "accounts", f"{limit} >= 0")
    for context in ("upload", "tunes", "images"):
        name = f"idempotency_{context}"
        op.create_table(
            name,
            sa.Column("account_id", sa.Uuid(), nullable=False),
            sa.Column("route", sa.Text(), nullable=False),
            sa.Column("key", sa.Text(), nullable=False),
            sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
            sa.Column("status", sa.Integer(), nullable=True),
            sa.Column("body", sa.LargeBinary(), nullable=True),
            sa.Column("resource_id", sa.Text(), nullable=True),
            sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
            sa.CheckConstraint(
                "num_nonnulls(status, body) = CASE WHEN resource_id IS NULL THEN 2 ELSE 0 END",
                name=op.f(f"ck_{name}_answer"),
            ),
            sa.PrimaryKeyConstraint("account_id", "route", "key", name=op.f(f"pk_{name}")),
        )
        op.create_index(f"ix_{name}_created_at", name, ["created_at"], unique=False)


def downgrade() -> None:
    """Undo."""
    for context in ("images", "tunes", "upload"):
        op.drop_table(f"idempotency_{context}")
    for limit in LIMITS:
        op.drop_constraint(op.f(f"ck_accounts_{limit}"), "accounts")
        op.drop_column("accounts", limit)
