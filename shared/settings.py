"""Settings that processes share, read from the environment (`TUNESMITH_...`).

`docs/configuration.md` lists every setting of every process; a test keeps the list complete.
"""

import os
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

from pydantic import Field, FilePath, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict
from sqlalchemy import make_url

SECRETS_DIR = "TUNESMITH_SECRETS_DIR"
"""Names a folder with a file for each setting that is not in the environment, such as `tunesmith_s3_secret_key`."""


class ProcessSettings(BaseSettings):
    """What every process needs: its public URL, its address and its log."""

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_",
        frozen=True,
        # The values are secrets in part.
        hide_input_in_errors=True,
    )

    public_url: str = Field(
        default="http://127.0.0.1:8080",
        description="The origin that clients use. Presigned URLs and links are built from it, never from a Host header.",
    )
    http_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    http_port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    log_format: Literal["console", "json"] = Field(default="json", description="`console` for people, `json` for machines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Lowest level that is logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, first to last: arguments, the environment, the folder of secrets."""
        folder = os.environ.get(SECRETS_DIR)
        files = SecretsSettingsSource(settings_cls, secrets_dir=folder) if folder else file_secret_settings
        return init_settings, env_settings, dotenv_settings, files


class ServiceSettings(ProcessSettings):
    """What a service also needs: the database, the broker, the store, and how it works with them."""

    database_password: SecretStr | None = Field(
        default=None, description="Password of PostgreSQL, if the URL has none; it may have any character."
    )
    database_url: SecretStr = Field(description="PostgreSQL, as `postgresql+asyncpg://user:password@host:port/name`.")
    database_tls: Literal["off", "require", "verify-full"] = Field(
        default="off",
        description="TLS to PostgreSQL: `require` encrypts, `verify-full` also checks the server's certificate and name.",
    )
    database_ca_file: FilePath | None = Field(
        default=None, description="CA certificates for `verify-full`, as a PEM file; empty: those of the system."
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections held to PostgreSQL, besides those that requests of an API use."
    )
    kafka_bootstrap_servers: str = Field(description="Kafka brokers, as `host:port,host:port`.")
    kafka_tls: bool = Field(default=False, description="Whether Kafka is reached by TLS; its certificate is checked.")
    kafka_ca_file: FilePath | None = Field(
        default=None, description="CA certificates for Kafka, as a PEM file; empty: those of the system."
    )
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="", description="How to sign in to Kafka: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty: not at all."
    )
    kafka_sasl_username: str = Field(default="", description="User name at Kafka.")
    kafka_sasl_password: SecretStr = Field(default=SecretStr(""), description="Password at Kafka.")
    kafka_replication_factor: int = Field(
        default=1, ge=1, description="Copies of each new topic; 3 in a cluster that must survive the loss of a broker."
    )
    s3_endpoint: str = Field(description="The S3 store as the services reach it, as `http://host:port`.")
    s3_ca_file: FilePath | None = Field(
        default=None, description="CA certificates for an `https` store, as a PEM file; empty: Mozilla's."
    )
    s3_access_key: SecretStr = Field(description="Access key of the S3 store.")
    s3_secret_key: SecretStr = Field(description="Secret key of the S3 store.")
    s3_bucket: str = Field(default="tunesmith", description="The bucket that holds all objects.")
    s3_region: str = Field(default="us-east-1", description="Region used in signatures.")
    s3_sts_endpoint: str = Field(
        default="", description="Where credentials for one object are requested (AssumeRole); empty: from the store itself."
    )
    s3_sts_role_arn: str = Field(
        default="", description="Role to assume for these credentials, if the store requires one, as AWS does."
    )
    work_dir: Path = Field(
        default=Path(gettempdir()) / "tunesmith",
        description="Scratch folder of this process; safe to delete while the process is stopped.",
    )
    outbox_poll_s: float = Field(
        default=1.0, gt=0, description="How often the outbox is polled when no notification arrives, in seconds."
    )
    reconcile_every_s: float = Field(
        default=5.0, gt=0, description="How often rows that have waited too long for an event are looked for, in seconds."
    )
    consumer_silence_s: float = Field(
        default=90.0, gt=0, description="Seconds without a poll of Kafka after which `/health` of a service that consumes fails."
    )
    safety_checker: str = Field(
        default="",
        description="What checks images: `opennsfw`, or a class as `package.module:Class`; empty: images are not checked.",
    )
    safety_threshold: float = Field(
        default=0.5, gt=0, le=1, description="Images with at least this score of the safety checker are refused, from 0 to 1."
    )

    @field_validator("database_url")
    @classmethod
    def _with_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        password: SecretStr | None = info.data.get("database_password")
        if password is None:
            return value
        url = make_url(value.get_secret_value()).set(password=password.get_secret_value())
        return SecretStr(url.render_as_string(hide_password=False))


class ApiSettings(ServiceSettings):
    """What a service with a public API also needs: the limits of an account that has none of its own."""

    deleted_kept_s: float = Field(
        default=30 * 86400.0,
        gt=0,
        description="How long the rows of deleted assets, tunes and objects are kept, in seconds.",
    )
    database_api_pool_size: int = Field(
        default=8, ge=2, le=200, description="Connections to PostgreSQL that requests use; accounts share them fairly."
    )
    database_wait_s: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="How long a request waits for a connection or for its account's turn, in seconds; then it gets a 429 or 503.",
    )
    max_requests_per_minute: int = Field(
        default=1200, ge=0, description="Requests that an account may send in a minute to all replicas of a service."
    )
    max_failed_keys_per_minute: int = Field(
        default=100,
        ge=1,
        description="Keys that may fail in a minute from one address, at all replicas, before only known keys are looked up.",
    )
    max_unfinished_tunes: int = Field(
        default=1000, ge=0, description="Tunes of an account that have not ended, including waiting ones."
    )
    max_images_in_flight: int = Field(
        default=256, ge=0, description="Images of an account that are requested and not generated yet."
    )
    max_stored_bytes: int = Field(
        default=2**40,
        ge=0,
        description="Bytes that an account may have in its library, including uploads and what its tunes produce.",
    )
    max_assets: int = Field(default=100_000, ge=0, description="Assets that an account may have, including uploads.")
