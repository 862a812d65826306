"""Blobs stay until their objects are gone, and indexes for retention, quotas, public lists and references to blobs."""

from alembic import op

revision = "0008"
down_revision = "0007"

STATES = "'staging', 'committed', 'orphaned', 'deleting', 'deleted'"
OLD_STATES = "'staging', 'committed', 'orphaned', 'deleted'"
FINAL = "type IN ('tune.succeeded', 'tune.failed', 'tune.cancelled')"
INDEXES: tuple[tuple[str, str, list[str], str | None], ...] = (
    ("ix_assets_deleted", "assets", ["deleted_at"], "deleted_at IS NOT NULL"),
    ("ix_assets_public", "assets", ["created_at", "id"], "is_public AND deleted_at IS NULL"),
    ("ix_assets_staging_key", "assets", ["staging_key"], "staging_key IS NOT NULL"),
    ("ix_blobs_deleted", "blobs", ["owner", "deleted_at"], "state = 'deleted'"),
    ("ix_blobs_deleting", "blobs", ["owner", "key"], "state = 'deleting'"),
    ("ix_checkpoints_blob_key", "checkpoints", ["blob_key"], None),
    ("ix_generations_finished", "generations", ["finished_at"], "finished_at IS NOT NULL"),
    ("ix_generations_in_flight", "generations", ["account_id"], "finished_at IS NULL"),
    ("ix_tune_events_old", "tune_events", ["occurred_at"], f"NOT ({FINAL})"),
    ("ix_tunes_base_blob_key", "tunes", ["base_blob_key"], None),
    ("ix_tunes_deleted", "tunes", ["deleted_at"], "deleted_at IS NOT NULL"),
    ("ix_tunes_lora_key", "tunes", ["lora_key"], "lora_key IS NOT NULL"),
    ("ix_tunes_unfinished", "tunes", ["account_id"], "ended_at IS NULL"),
)


def upgrade() -> None:
    """Apply."""
    op.drop_constraint(op.f("ck_blobs_state"), "blobs")
    op.create_check_constraint(op.f("ck_blobs_state"), "blobs", f"state IN ({STATES})")
    op.create_index("ix_blobs_listing", "blobs", ["key"], postgresql_ops={"key": "text_pattern_ops"})
    for name, table, columns, where in INDEXES:
        op.create_index(name, table, columns, postgresql_where=where)


def downgrade() -> None:
    """Undo."""
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table)
    op.drop_index("ix_blobs_listing", "blobs")
    # The objects of these rows may be deleted already. As orphans they are deleted once more.
    op.execute("UPDATE blobs SET state = 'orphaned', orphaned_at = now() WHERE state = 'deleting'")
    op.drop_constraint(op.f("ck_blobs_state"), "blobs")
    op.create_check_constraint(op.f("ck_blobs_state"), "blobs", f"state IN ({OLD_STATES})")
