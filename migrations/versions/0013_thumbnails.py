"""Thumbnails of images in the library, which an account's quota counts."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

COUNT = """
    CREATE OR REPLACE FUNCTION count_account_usage() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        account uuid;
        more_assets bigint := 0;
        more_bytes bigint := 0;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            account := OLD.account_id;
            IF OLD.deleted_at IS NULL THEN
                more_assets := -1;
                more_bytes := -({old});
            END IF;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            account := NEW.account_id;
            IF NEW.deleted_at IS NULL THEN
                more_assets := more_assets + 1;
                more_bytes := more_bytes + {new};
            END IF;
        END IF;
        IF more_assets <> 0 OR more_bytes <> 0 THEN
            INSERT INTO account_usage AS usage (account_id, assets, bytes) VALUES (account, more_assets, more_bytes)
            ON CONFLICT (account_id) DO UPDATE SET assets = usage.assets + more_assets, bytes = usage.bytes + more_bytes;
        END IF;
        RETURN NULL;
    END
    $$
"""


def upgrade() -> None:
    """Apply."""
    op.add_column("assets", sa.Column("thumbnail_key", sa.Text(), nullable=True))
    op.add_column("assets", sa.Column("thumbnail_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("assets", sa.Column("thumbnail_attempts", sa.Integer(), server_default="0", nullable=False))
    op.create_foreign_key(op.f("fk_assets_thumbnail_key_blobs"), "assets", "blobs", ["thumbnail_key"], ["key"])
    op.create_index(
        "ix_assets_thumbnail_key", "assets", ["thumbnail_key"], postgresql_where=sa.text("thumbnail_key IS NOT NULL")
    )
    op.create_index(
        "ix_assets_without_thumbnail",
        "assets",
        ["thumbnail_attempts", "created_at"],
        postgresql_where=sa.text("asset_type = 'file' AND status = 'ready' AND thumbnail_key IS NULL"),
    )
    _count("size_bytes", "copy_bytes", "reserved_bytes", "thumbnail_bytes")


def downgrade() -> None:
    """Undo."""
    # What is stored as a thumbnail is no longer counted, so the sums must not have it.
    op.execute("UPDATE assets SET thumbnail_bytes = 0 WHERE thumbnail_bytes > 0")
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")
    _count("size_bytes", "copy_bytes", "reserved_bytes")
    op.drop_index("ix_assets_without_thumbnail", table_name="assets")
    op.drop_index("ix_assets_thumbnail_key", table_name="assets")
    op.drop_constraint(op.f("fk_assets_thumbnail_key_blobs"), "assets", type_="foreignkey")
    for column in ("thumbnail_attempts", "thumbnail_bytes", "thumbnail_key"):
        op.drop_column("assets", column)


def _count(*columns: str) -> None:
    """Replace the function that counts what an account stores by one that adds up these columns."""
    op.execute(COUNT.format(old=" + ".join(f"OLD.{name}" for name in columns), new=" + ".join(f"NEW.{name}" for name in columns)))
