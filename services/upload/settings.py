"""Settings of the upload service."""

from pydantic import Field

from shared.settings import ApiSettings

IMPORT_HOSTS = (
    "huggingface.co",
    "*.huggingface.co",
    "*.hf.co",
    "civitai.com",
    "*.civitai.com",
    # Civitai redirects most downloads here.
    "civitai-delivery-worker-prod.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com",
)


class UploadSettings(ApiSettings):
    """Limits on the size and the duration of uploads and imports, and the periods of background work."""

    max_file_bytes: int = Field(
        default=64 * 2**20,
        gt=0,
        description="Largest image that may be uploaded, in bytes; the edge has the same limit.",
    )
    max_adapter_bytes: int = Field(
        default=2 * 2**30,
        gt=0,
        description="Largest LoRA or textual inversion that may be uploaded, in bytes; the edge has the same limit.",
    )
    max_checkpoint_bytes: int = Field(
        default=16 * 2**30,
        gt=0,
        description="Largest checkpoint or VAE that may be uploaded, in bytes; the edge has the same limit.",
    )
    max_pixels: int = Field(
        default=16_000_000,
        ge=4096,
        description="Largest image that is stored and trained on, in pixels; larger ones are scaled down.",
    )
    upload_url_s: int = Field(
        default=24 * 3600,
        gt=0,
        le=7 * 24 * 3600,
        description="How long an upload may take, in seconds: its URL expires then, and its name becomes free soon after.",
    )
    upload_credentials_s: int = Field(
        default=3600,
        ge=3600,
        le=12 * 3600,
        description="How long the credentials of an `sts` upload are valid, in seconds; stores grant at least an hour.",
    )
    import_hosts: str = Field(
        default=",".join(IMPORT_HOSTS),
        description="Hosts that imports may fetch from or be redirected to: `host`, `*.domain`, `host:port`, `http://host:port`.",
    )
    import_private_networks: str = Field(
        default="",
        description="Private networks that an import host may be in, such as `10.1.0.0/16,fd00::/8`; any other must be public.",
    )
    import_concurrency: int = Field(
        default=3, ge=1, le=32, description="Imports that one process fetches at the same time; accounts share them fairly."
    )
    import_timeout_s: float = Field(
        default=3600.0, gt=0, description="Longest time that fetching the file of an import may take, in seconds."
    )
    import_stall_s: float = Field(
        default=30.0, gt=0, description="How long a host may send nothing during an import, in seconds."
    )
    import_silence_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds without a heartbeat before another process takes over an import.",
    )
    hf_endpoint: str = Field(
        default="https://huggingface.co",
        description="URL of the hub on which `hf_repo` is looked up; its host must be one of the import hosts.",
    )
    download_url_s: int = Field(
        default=3600, gt=0, le=6 * 24 * 3600, description="How long a download URL is valid, in seconds; up to an hour more."
    )
    intake_concurrency: int = Field(
        default=3, ge=1, le=32, description="Uploads that one process checks at the same time; accounts share them fairly."
    )
    intake_attempts: int = Field(
        default=5,
        ge=1,
        description="Attempts to check an upload that the disk or the end of a process may cut short, before it ends in `error`.",
    )
    intake_bound_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds an upload may wait for its verdict before its event is republished; large files may wait longer.",
    )
    registration_concurrency: int = Field(
        default=3, ge=1, le=32, description="LoRAs of trained tunes that one process registers at the same time, besides uploads."
    )
    registration_attempts: int = Field(
        default=10,
        ge=1,
        description="Attempts to register the LoRA of a trained tune, with a longer pause after each, before the tune fails.",
    )
    registration_bound_s: float = Field(
        default=15.0,
        gt=0,
        description="How long a trained LoRA may wait for its registration before that is retried, in seconds.",
    )
    blob_grace_s: float = Field(
        default=3 * 3600.0,
        ge=0,
        description="How long an unreferenced object is kept, in seconds; longer than a download URL is valid.",
    )
    collect_every_s: float = Field(default=60.0, gt=0, description="How often unreferenced objects are deleted, in seconds.")
    staging_check_s: float = Field(
        default=30.0, gt=0, description="How often uploads in staging are compared with what they reserved, in seconds."
    )
    sweep_every_s: float = Field(
        default=3600.0, gt=0, description="How often the store is compared with the database, in seconds."
    )

    def max_bytes(self, asset_type: str) -> int:
        """Return the limit for an asset of this type, in bytes."""
        adapters = {"lora": self.max_adapter_bytes, "textual_inversion": self.max_adapter_bytes}
        return (adapters | {"file": self.max_file_bytes}).get(asset_type, self.max_checkpoint_bytes)
