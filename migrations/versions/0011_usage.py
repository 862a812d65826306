"""What an account stores is counted by a trigger instead of summed, and keys that may be uploaded in parts are remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

COUNT = """
    CREATE FUNCTION count_account_usage() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        account uuid;
        more_assets bigint := 0;
        more_bytes bigint := 0;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            account := OLD.account_id;
            IF OLD.deleted_at IS NULL THEN
                more_assets := -1;
                more_bytes := -(OLD.size_bytes + OLD.copy_bytes + OLD.reserved_bytes);
            END IF;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            account := NEW.account_id;
            IF NEW.deleted_at IS NULL THEN
                more_assets := more_assets + 1;
                more_bytes := more_bytes + NEW.size_bytes + NEW.copy_bytes + NEW.reserved_bytes;
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
# Deferred: the row of the account is the last one that a transaction locks, and only while it commits.
TRIGGER = """
    CREATE CONSTRAINT TRIGGER assets_usage AFTER INSERT OR UPDATE OR DELETE ON assets
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_account_usage()
"""
# Creating the trigger keeps other writers out until the migration commits, so the sums are exact.
FILL = """
    INSERT INTO account_usage (account_id, assets, bytes)
    SELECT account_id, count(*), sum(size_bytes + copy_bytes + reserved_bytes)
    FROM assets WHERE deleted_at IS NULL GROUP BY account_id
"""


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "account_usage",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("assets", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account_usage")),
    )
    op.execute(COUNT)
    op.execute(TRIGGER)
    op.execute(FILL)
    op.drop_index("ix_assets_quota", table_name="assets")
    op.create_table(
        "part_uploads",
        sa.Column("staging_key", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("staging_key", name=op.f("pk_part_uploads")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("part_uploads")
    op.create_index(
        "ix_assets_quota",
        "assets",
        ["account_id"],
        postgresql_include=["size_bytes", "copy_bytes", "reserved_bytes"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.execute("DROP TRIGGER assets_usage ON assets")
    op.execute("DROP FUNCTION count_account_usage()")
    op.drop_table("account_usage")
