"""Blobs stay until their objects are gone."""

from alembic import op

revision = "0008"
down_revision = "0006"

STATES = "'staging', 'committed', 'orphaned', 'deleting', 'deleted'"
OLD_STATES = "'staging', 'committed', 'orphaned', 'deleted'"


def upgrade() -> None:
    """Apply."""
    op.drop_constraint(op.f("ck_blobs_state"), "blobs")
    op.create_check_constraint(op.f("ck_blobs_state"), "blobs", f"state IN ({STATES})")
    op.create_index("ix_blobs_deleting", "blobs", ["owner", "key"], postgresql_where="state = 'deleting'")
    op.create_index("ix_blobs_listing", "blobs", ["key"], postgresql_ops={"key": "text_pattern_ops"})


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_blobs_listing", "blobs")
    op.drop_index("ix_blobs_deleting", "blobs")
    # The objects of these rows may be deleted already. As orphans they are deleted once more.
    op.execute("UPDATE blobs SET state = 'orphaned' WHERE state = 'deleting'")
    op.drop_constraint(op.f("ck_blobs_state"), "blobs")
    op.create_check_constraint(op.f("ck_blobs_state"), "blobs", f"state IN ({OLD_STATES})")
