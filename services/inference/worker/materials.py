"""The files that a request needs on this machine before it can be drawn: models and images."""

from dataclasses import dataclass, field
from pathlib import Path

from services.inference.inputs import Inputs
from services.inference.worker.files import FileCache
from services.inference.worker.settings import WorkerSettings
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs

_MAX_IMAGE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class LoraFile:
    """A LoRA of a request."""

    name: str
    """Its name in the request, for error texts."""
    sha256: str
    path: Path
    weight: float


@dataclass(frozen=True)
class Materials:
    """Folders of checkpoints, files of adapters, and the request's encoded images by key."""

    base: Path
    loras: list[LoraFile] = field(default_factory=list)
    vae: Path | None = None
    embeddings: list[tuple[str, Path]] = field(default_factory=list)
    """Trigger word and file."""
    controlnet: Path | None = None
    refiner: Path | None = None
    images: dict[str, bytes] = field(default_factory=dict)


class Supplies:
    """Fetches materials, and keeps the disk caches of models within their limits."""

    def __init__(self, settings: WorkerSettings, blobs: Blobs) -> None:
        self._blobs = blobs
        self._checkpoints = CheckpointCache(settings.work_dir / "checkpoints", blobs, settings.checkpoint_cache_bytes)
        self._files = FileCache(settings.work_dir / "files", blobs, settings.file_cache_bytes)

    async def fetch(self, inputs: Inputs) -> Materials:
        """Return what the request needs.

        Raises NotFoundError for an object that is gone and InvalidError for one whose bytes have changed.
        """
        base = await self._checkpoints.fetch(inputs.base.blob_key, inputs.base.sha256)
        loras = [
            LoraFile(
                name=ref.name,
                sha256=ref.sha256,
                path=await self._files.fetch(ref.blob_key, ref.sha256, f"the LoRA {ref.name}"),
                weight=ref.weight,
            )
            for ref in inputs.loras
        ]
        embeddings = [
            (ref.trigger, await self._files.fetch(ref.blob_key, ref.sha256, f"the textual inversion {ref.name}"))
            for ref in inputs.embeddings
        ]
        vae = inputs.vae and await self._files.fetch(inputs.vae.blob_key, inputs.vae.sha256, f"the VAE {inputs.vae.name}")
        control, refine, start = inputs.control, inputs.refine, inputs.start
        controlnet = control and await self._checkpoints.fetch(control.model.blob_key, control.model.sha256)
        refiner = refine and await self._checkpoints.fetch(refine.model.blob_key, refine.model.sha256)
        refs = [start and start.image, start and start.mask, control and control.image]
        images = {ref.key: await self._blobs.get_bytes(ref.key, max_bytes=_MAX_IMAGE_BYTES) for ref in refs if ref is not None}
        self._files.trim({lora.path for lora in loras} | {path for _, path in embeddings} | ({vae} if vae else set()))
        return Materials(base, loras, vae, embeddings, controlnet, refiner, images)
