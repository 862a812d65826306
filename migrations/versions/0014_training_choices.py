"""Images of the class that an account brings for a tune's prior, and the memory of a trainer's GPU."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Apply."""
    op.add_column("tune_files", sa.Column("regularization", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("trainers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("trainers", "memory_bytes")
    op.drop_column("tune_files", "regularization")
