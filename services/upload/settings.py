"""Settings of the upload service."""

from pydantic import Field

from shared.settings import ApiSettings

IMPORT_HOSTS = (
    "huggingface.co",
    "*.huggingface.co",
    "*.hf.co",
    "civitai.com",
    "*.civitai.com",
    # Where Civitai keeps most of its files.
    "civitai-delivery-worker-prod.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com",
)


class UploadSettings(ApiSettings):
    """Limits on what is uploaded, and how long things may take."""

    max_file_bytes: int = Field(
        default=32 * 2**20,
        gt=0,
        description="Largest picture that may be uploaded, in bytes; the edge has the same limit.",
    )
    max_adapter_bytes: int = Field(
        default=2 * 2**30, gt=0, description="Largest LoRA that may be uploaded, in bytes; the edge has the same limit."
    )
    max_checkpoint_bytes: int = Field(
        default=16 * 2**30,
        gt=0,
        description="Largest checkpoint that may be uploaded, in bytes; the edge has the same limit.",
    )
    max_pixels: int = Field(default=16_000_000, gt=0, description="Largest picture that is accepted, in pixels.")
    upload_url_s: int = Field(
        default=24 * 3600,
        gt=0,
        le=7 * 24 * 3600,
        description="How long an upload may take, in seconds: its URL lives as long, and then its name is free again.",
    )
    upload_credentials_s: int = Field(
        default=3600,
        ge=3600,
        le=12 * 3600,
        description="How long credentials for one object live (`sts` uploads), in seconds; stores give an hour at least.",
    )
    import_hosts: str = Field(
        default=",".join(IMPORT_HOSTS),
        description="Hosts that files are fetched from and redirected to: `host`, `*.domain`, `host:port`, `http://host:port`.",
    )
    import_private_networks: str = Field(
        default="",
        description="Networks of your own that such a host may lie in, as `10.1.0.0/16,fd00::/8`; others are public or refused.",
    )
    import_concurrency: int = Field(default=2, ge=1, le=32, description="Files that one process fetches at the same time.")
    import_timeout_s: float = Field(default=3600.0, gt=0, description="Longest time that fetching a file may take, in seconds.")
    import_stall_s: float = Field(
        default=30.0, gt=0, description="How long a host may send nothing while a file is fetched, in seconds."
    )
    import_silence_s: float = Field(
        default=30.0,
        gt=0,
        description="How long nobody may be at an import before another process takes it over, in seconds.",
    )
    hf_endpoint: str = Field(
        default="https://huggingface.co", description="Where `hf_repo` is looked up; its host must be among the import hosts."
    )
    download_url_s: int = Field(default=3600, gt=0, le=7 * 24 * 3600, description="How long a download URL lives, in seconds.")
    intake_concurrency: int = Field(default=2, ge=1, le=32, description="Uploads that one process checks at the same time.")
    intake_bound_s: float = Field(
        default=30.0,
        gt=0,
        description="How long an upload may wait for its verdict before it is announced again, in seconds; larger files longer.",
    )
    registration_bound_s: float = Field(
        default=15.0,
        gt=0,
        description="How long a trained LoRA may wait for its asset before it is looked at again, in seconds.",
    )
    blob_grace_s: float = Field(
        default=2 * 3600.0,
        ge=0,
        description="How long an object that nothing refers to is kept, in seconds; longer than a download URL lives.",
    )
    collect_every_s: float = Field(
        default=60.0, gt=0, description="How often objects that nothing refers to are looked for, in seconds."
    )
    sweep_every_s: float = Field(
        default=3600.0, gt=0, description="How often the store is compared with the database, in seconds."
    )

    def max_bytes(self, asset_type: str) -> int:
        """Return the limit for an asset of this type, in bytes."""
        adapters = {"lora": self.max_adapter_bytes, "textual_inversion": self.max_adapter_bytes}
        return (adapters | {"file": self.max_file_bytes}).get(asset_type, self.max_checkpoint_bytes)
