"""Attempts are counted: to check an upload, in its asset's row, and to register a trained LoRA, in a table of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    op.add_column("assets", sa.Column("intake_attempts", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "lora_registrations",
        sa.Column("tune_id", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tune_id", name=op.f("pk_lora_registrations")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("lora_registrations")
    op.drop_column("assets", "intake_attempts")
