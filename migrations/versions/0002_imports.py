"""Assets that the server fetches by itself."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0003"


def upgrade() -> None:
    """Apply."""
    op.add_column("assets", sa.Column("url", sa.Text(), nullable=True))
    op.add_column("assets", sa.Column("hf_repo", sa.Text(), nullable=True))
    # The default stays: the release before this one goes on adding rows while this one is rolled out.
    op.add_column("assets", sa.Column("needs_token", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_check_constraint(op.f("ck_assets_one_source"), "assets", "url IS NULL OR hf_repo IS NULL")
    op.create_check_constraint(op.f("ck_assets_token_has_source"), "assets", "NOT needs_token OR hf_repo IS NOT NULL")


def downgrade() -> None:
    """Revert."""
    op.drop_constraint(op.f("ck_assets_token_has_source"), "assets")
    op.drop_constraint(op.f("ck_assets_one_source"), "assets")
    op.drop_column("assets", "needs_token")
    op.drop_column("assets", "hf_repo")
    op.drop_column("assets", "url")
