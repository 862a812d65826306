"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""

    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_platform", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_index(
        "uq_accounts_platform", "accounts", ["is_platform"], unique=True, postgresql_where="is_platform"
    )
    op.create_table(
        "asset_names",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder_kind", sa.Text(), nullable=False),
        sa.Column("holder_id", sa.Text(), nullable=False),
        sa.CheckConstraint("holder_kind IN ('asset', 'tune')", name=op.f("ck_asset_names_holder_kind")),
        sa.PrimaryKeyConstraint("account_id", "name", name=op.f("pk_asset_names")),
    )
    op.create_index("uq_asset_names_holder", "asset_names", ["holder_kind", "holder_id"], unique=True)
    op.create_table(
        "blobs",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("orphaned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("owner IN ('upload', 'tunes', 'images')", name=op.f("ck_blobs_owner")),
        sa.CheckConstraint(
            "state <> 'committed' OR sha256 IS NOT NULL", name=op.f("ck_blobs_committed_has_sha256")
        ),
        sa.CheckConstraint(
            "state IN ('staging', 'committed', 'orphaned', 'deleted')", name=op.f("ck_blobs_state")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_blobs")),
    )
    op.create_index(
        "ix_blobs_orphaned",
        "blobs",
        ["owner", "orphaned_at"],
        unique=False,
        postgresql_where="state = 'orphaned'",
    )
    op.create_index(
        "ix_blobs_staging",
        "blobs",
        ["owner", "created_at"],
        unique=False,
        postgresql_where="state = 'staging'",
    )
    op.create_table(
        "inbox_images",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "consumer", name=op.f("pk_inbox_images")),
    )
    op.create_index("ix_inbox_images_received_at", "inbox_images", ["received_at"], unique=False)
    op.create_table(
        "inbox_tunes",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "consumer", name=op.f("pk_inbox_tunes")),
    )
    op.create_index("ix_inbox_tunes_received_at", "inbox_tunes", ["received_at"], unique=False)
    op.create_table(
        "inbox_upload",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "consumer", name=op.f("pk_inbox_upload")),
    )
    op.create_index("ix_inbox_upload_received_at", "inbox_upload", ["received_at"], unique=False)
    op.create_table(
        "outbox_images",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_images")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_images_event_id")),
    )
    op.create_table(
        "outbox_tunes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_tunes")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_tunes_event_id")),
    )
    op.create_table(
        "outbox_upload",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_upload")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_upload_event_id")),
    )
    op.create_table(
        "trainers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tune_id", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('starting', 'idle', 'busy', 'draining')", name=op.f("ck_trainers_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trainers")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_api_keys_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_api_keys_key_sha256")),
    )
    op.create_table(
        "assets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("asset_type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_details", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("staging_key", sa.Text(), nullable=True),
        sa.Column("blob_key", sa.Text(), nullable=True),
        sa.Column("tune_id", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'deleted') = (deleted_at IS NOT NULL)", name=op.f("ck_assets_deleted")),
        sa.CheckConstraint(
            "asset_type IN ('file', 'checkpoint', 'lora', 'textual_inversion', 'vae')",
            name=op.f("ck_assets_type"),
        ),
        sa.CheckConstraint(
            "status <> 'ready' OR blob_key IS NOT NULL", name=op.f("ck_assets_ready_has_blob")
        ),
        sa.CheckConstraint(
            "status IN ('ready_to_upload', 'uploaded', 'ready', 'rejected', 'error', 'deleted')",
            name=op.f("ck_assets_status"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_assets_account_id")),
        sa.ForeignKeyConstraint(["blob_key"], ["blobs.key"], name=op.f("fk_assets_blob_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assets")),
    )
    op.create_index("ix_assets_blob_key", "assets", ["blob_key"], unique=False)
    op.create_index("ix_assets_newest", "assets", ["account_id", "created_at"], unique=False)
    op.create_index(
        "ix_assets_unchecked", "assets", ["uploaded_at"], unique=False, postgresql_where="status = 'uploaded'"
    )
    op.create_index(
        "ix_assets_unfinished",
        "assets",
        ["created_at"],
        unique=False,
        postgresql_where="status = 'ready_to_upload'",
    )
    op.create_index(
        "uq_assets_name", "assets", ["account_id", "name"], unique=True, postgresql_where="deleted_at IS NULL"
    )
    op.create_index(
        "uq_assets_tune_id", "assets", ["tune_id"], unique=True, postgresql_where="tune_id IS NOT NULL"
    )
    op.create_table(
        "generations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("affinity", sa.Text(), nullable=False),
        sa.Column("inputs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("claim_epoch", sa.BigInteger(), nullable=False),
        sa.Column("claim_token", sa.Uuid(), nullable=True),
        sa.Column("claim_holder", sa.Text(), nullable=True),
        sa.Column("claim_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_generations_error")),
        sa.CheckConstraint(
            "(state = 'succeeded') = (result IS NOT NULL)", name=op.f("ck_generations_result")
        ),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_generations_finished"),
        ),
        sa.CheckConstraint(
            "CASE WHEN state = 'running' THEN num_nonnulls(claim_token, claim_holder, claim_expires_at) = 3 ELSE num_nonnulls(claim_token, claim_holder, claim_expires_at) = 0 END",
            name=op.f("ck_generations_claim"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed')", name=op.f("ck_generations_state")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_generations_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    op.create_index("ix_generations_newest", "generations", ["account_id", "created_at"], unique=False)
    op.create_index(
        "ix_generations_unfinished",
        "generations",
        ["state", "updated_at"],
        unique=False,
        postgresql_where="finished_at IS NULL",
    )
    op.create_table(
        "tunes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("base_asset_id", sa.Text(), nullable=False),
        sa.Column("base_name", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("base_blob_key", sa.Text(), nullable=False),
        sa.Column("base_sha256", sa.Text(), nullable=False),
        sa.Column("shape_class", sa.Text(), nullable=False),
        sa.Column("native_size_px", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("trigger_word", sa.Text(), nullable=False),
        sa.Column("resize_images", sa.Boolean(), nullable=False),
        sa.Column("continue_on_rejection", sa.Boolean(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("status_details", sa.Text(), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_holder", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=True),
        sa.Column("steps_per_second", sa.Double(), nullable=True),
        sa.Column("steps_run", sa.Integer(), nullable=False),
        sa.Column("lora_key", sa.Text(), nullable=True),
        sa.Column("lora_sha256", sa.Text(), nullable=True),
        sa.Column("lora_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("lora_asset_id", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trained_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'succeeded') = (succeeded_at IS NOT NULL)", name=op.f("ck_tunes_succeeded")
        ),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'failed', 'succeeded')) = (ended_at IS NOT NULL)",
            name=op.f("ck_tunes_ended"),
        ),
        sa.CheckConstraint(
            "CASE WHEN state IN ('preparing', 'training') THEN num_nonnulls(lease_token, lease_holder, lease_expires_at) = 3 ELSE num_nonnulls(lease_token, lease_holder, lease_expires_at) = 0 END",
            name=op.f("ck_tunes_lease"),
        ),
        sa.CheckConstraint(
            "state <> 'succeeded' OR lora_asset_id IS NOT NULL", name=op.f("ck_tunes_succeeded_has_lora")
        ),
        sa.CheckConstraint(
            "state IN ('waiting_files', 'queued', 'preparing', 'training', 'publishing', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_tunes_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('publishing', 'succeeded') OR trained_at IS NOT NULL",
            name=op.f("ck_tunes_published_is_trained"),
        ),
        sa.CheckConstraint(
            "(trained_at IS NULL) = (lora_key IS NULL)", name=op.f("ck_tunes_trained_has_lora")
        ),
        sa.CheckConstraint("step >= 0 AND step <= steps", name=op.f("ck_tunes_step")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_tunes_account_id")),
        sa.ForeignKeyConstraint(["base_blob_key"], ["blobs.key"], name=op.f("fk_tunes_base_blob_key")),
        sa.ForeignKeyConstraint(["lora_key"], ["blobs.key"], name=op.f("fk_tunes_lora_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tunes")),
    )
    op.create_index(
        "ix_tunes_leases",
        "tunes",
        ["lease_expires_at"],
        unique=False,
        postgresql_where="lease_expires_at IS NOT NULL",
    )
    op.create_index("ix_tunes_newest", "tunes", ["account_id", "created_at"], unique=False)
    op.create_index(
        "ix_tunes_queue",
        "tunes",
        ["account_id", "priority", "queued_at"],
        unique=False,
        postgresql_where="state = 'queued'",
    )
    op.create_index(
        "ix_tunes_unended",
        "tunes",
        ["state", "updated_at"],
        unique=False,
        postgresql_where="ended_at IS NULL",
    )
    op.create_index(
        "uq_tunes_lease_token",
        "tunes",
        ["lease_token"],
        unique=True,
        postgresql_where="lease_token IS NOT NULL",
    )
    op.create_index(
        "uq_tunes_name",
        "tunes",
        ["account_id", "name"],
        unique=True,
        postgresql_where="deleted_at IS NULL OR ended_at IS NULL",
    )
    op.create_table(
        "checkpoints",
        sa.Column("tune_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["blob_key"], ["blobs.key"], name=op.f("fk_checkpoints_blob_key")),
        sa.ForeignKeyConstraint(["tune_id"], ["tunes.id"], name=op.f("fk_checkpoints_tune_id")),
        sa.PrimaryKeyConstraint("tune_id", "step", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "tune_events",
        sa.Column("tune_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tune_id"], ["tunes.id"], name=op.f("fk_tune_events_tune_id")),
        sa.PrimaryKeyConstraint("tune_id", "sequence", name=op.f("pk_tune_events")),
    )
    op.create_table(
        "tune_files",
        sa.Column("tune_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(verdict = 'ready') = (blob_key IS NOT NULL)", name=op.f("ck_tune_files_ready_has_blob")
        ),
        sa.CheckConstraint("verdict IN ('pending', 'ready', 'rejected')", name=op.f("ck_tune_files_verdict")),
        sa.ForeignKeyConstraint(["blob_key"], ["blobs.key"], name=op.f("fk_tune_files_blob_key")),
        sa.ForeignKeyConstraint(["tune_id"], ["tunes.id"], name=op.f("fk_tune_files_tune_id")),
        sa.PrimaryKeyConstraint("tune_id", "position", name=op.f("pk_tune_files")),
    )
    op.create_index("ix_tune_files_asset_id", "tune_files", ["asset_id"], unique=False)
    op.create_index("ix_tune_files_blob_key", "tune_files", ["blob_key"], unique=False)


def downgrade() -> None:
    """Undo."""

    op.drop_index("ix_tune_files_blob_key", table_name="tune_files")
    op.drop_index("ix_tune_files_asset_id", table_name="tune_files")
    op.drop_table("tune_files")
    op.drop_table("tune_events")
    op.drop_table("checkpoints")
    op.drop_index(
        "uq_tunes_name", table_name="tunes", postgresql_where="deleted_at IS NULL OR ended_at IS NULL"
    )
    op.drop_index("uq_tunes_lease_token", table_name="tunes", postgresql_where="lease_token IS NOT NULL")
    op.drop_index("ix_tunes_unended", table_name="tunes", postgresql_where="ended_at IS NULL")
    op.drop_index("ix_tunes_queue", table_name="tunes", postgresql_where="state = 'queued'")
    op.drop_index("ix_tunes_newest", table_name="tunes")
    op.drop_index("ix_tunes_leases", table_name="tunes", postgresql_where="lease_expires_at IS NOT NULL")
    op.drop_table("tunes")
    op.drop_index(
        "ix_generations_unfinished", table_name="generations", postgresql_where="finished_at IS NULL"
    )
    op.drop_index("ix_generations_newest", table_name="generations")
    op.drop_table("generations")
    op.drop_index("uq_assets_tune_id", table_name="assets", postgresql_where="tune_id IS NOT NULL")
    op.drop_index("uq_assets_name", table_name="assets", postgresql_where="deleted_at IS NULL")
    op.drop_index("ix_assets_unfinished", table_name="assets", postgresql_where="status = 'ready_to_upload'")
    op.drop_index("ix_assets_unchecked", table_name="assets", postgresql_where="status = 'uploaded'")
    op.drop_index("ix_assets_newest", table_name="assets")
    op.drop_index("ix_assets_blob_key", table_name="assets")
    op.drop_table("assets")
    op.drop_table("api_keys")
    op.drop_table("trainers")
    op.drop_table("outbox_upload")
    op.drop_table("outbox_tunes")
    op.drop_table("outbox_images")
    op.drop_index("ix_inbox_upload_received_at", table_name="inbox_upload")
    op.drop_table("inbox_upload")
    op.drop_index("ix_inbox_tunes_received_at", table_name="inbox_tunes")
    op.drop_table("inbox_tunes")
    op.drop_index("ix_inbox_images_received_at", table_name="inbox_images")
    op.drop_table("inbox_images")
    op.drop_index("ix_blobs_staging", table_name="blobs", postgresql_where="state = 'staging'")
    op.drop_index("ix_blobs_orphaned", table_name="blobs", postgresql_where="state = 'orphaned'")
    op.drop_table("blobs")
    op.drop_index("uq_asset_names_holder", table_name="asset_names")
    op.drop_table("asset_names")
    op.drop_index("uq_accounts_platform", table_name="accounts", postgresql_where="is_platform")
    op.drop_table("accounts")
