"""The outboxes' `event_id` becomes `message_id`: a retry and a dead letter have one that is no event's.

A plain rename, which keeps the rows that wait. Processes of the release before cannot write to the outboxes after it, nor this
release's before it: stop the services, migrate, and start them again.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

OUTBOXES = ("outbox_upload", "outbox_tunes", "outbox_images")


def upgrade() -> None:
    """Apply."""
    for outbox in OUTBOXES:
        _rename(outbox, "event_id", "message_id")


def downgrade() -> None:
    """Undo."""
    for outbox in OUTBOXES:
        _rename(outbox, "message_id", "event_id")


def _rename(outbox: str, old: str, new: str) -> None:
    op.alter_column(outbox, old, new_column_name=new)
    op.execute(f"ALTER TABLE {outbox} RENAME CONSTRAINT uq_{outbox}_{old} TO uq_{outbox}_{new}")
