"""An image is kept as it was sent, beside its clean copy."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply."""
    op.add_column("assets", sa.Column("original_key", sa.Text(), nullable=True))
    op.add_column("assets", sa.Column("copy_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.create_foreign_key(op.f("fk_assets_original_key"), "assets", "blobs", ["original_key"], ["key"])
    op.create_index(
        "ix_assets_original_key", "assets", ["original_key"], postgresql_where=sa.text("original_key IS NOT NULL")
    )


def downgrade() -> None:
    """Undo. The collector deletes the originals: nothing refers to them any more."""
    op.drop_index("ix_assets_original_key", "assets")
    op.drop_constraint(op.f("fk_assets_original_key"), "assets", type_="foreignkey")
    op.drop_column("assets", "copy_bytes")
    op.drop_column("assets", "original_key")
