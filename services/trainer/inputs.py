"""What a tune is trained from, brought into its job's folder."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from services.trainer.engine.config import SPEC_FILE, Job, TrainingImage, resolve_parameters
from services.trainer.errors import BadBaseError, BadCheckpointError, BadImageError
from services.trainer.settings import TrainerSettings
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs
from shared.engines import Engine
from shared.errors import InvalidError, NotFoundError, UnavailableError
from shared.telemetry import get_logger
from shared.tunes.leases import Claim

log = get_logger(__name__)

T = TypeVar("T")
_RETRY_S = 1.0
_SHRINK_TO_PX = {Engine.SD15: 512, Engine.SDXL: 1024}
"""What `resize_images` means, as OctoAI had it."""


async def prepare(claim: Claim, folder: Path, blobs: Blobs, bases: CheckpointCache, settings: TrainerSettings) -> Path:
    """Download base, images and last checkpoint, and write the job's file, whose path is returned.

    Waits for a store that is away; the caller bounds it. Raises the errors of `services.trainer.errors`.
    """
    tune = claim.tune
    engine = Engine(tune.engine)
    chosen = dict(tune.parameters)
    checkpoint_every_steps = chosen.pop("checkpoint_every_steps", settings.checkpoint_every_steps)
    parameters = resolve_parameters(engine, tune.native_size_px, chosen)
    try:
        base_folder = await _patiently(lambda: bases.fetch(tune.base_blob_key, tune.base_sha256))
    except (NotFoundError, InvalidError) as error:
        msg = f"the base checkpoint {tune.base_name} cannot be used: {error.message}; tune another, or bring this one anew"
        raise BadBaseError(msg) from error
    images: list[TrainingImage] = []
    for image in claim.files:
        file = folder / f"image-{image.position}{Path(image.blob_key).suffix}"
        if not await _fetched(blobs, image.blob_key, image.sha256, file):
            msg = f"files[{image.position}]: the stored image is missing or damaged; upload it again and start a new tune"
            raise BadImageError(msg)
        images.append(TrainingImage(file=file, caption=image.caption))
    if not images:
        msg = "files: no training image passed the intake; upload others and start a new tune"
        raise BadImageError(msg)
    resume_from = None
    if claim.resume:
        resume_from = folder / f"resume-{claim.resume.step}.safetensors"
        if not await _fetched(blobs, claim.resume.blob_key, claim.resume.sha256, resume_from):
            msg = f"the checkpoint of step {claim.resume.step} is missing or damaged; start the tune again"
            raise BadCheckpointError(msg)
    job = Job(
        tune_id=tune.id,
        engine=engine,
        base_folder=base_folder,
        base_sha256=tune.base_sha256,
        shape_class=tune.shape_class,
        native_size_px=tune.native_size_px,
        trigger_word=tune.trigger_word,
        steps=tune.steps,
        seed=tune.seed,
        images=images,
        parameters=parameters,
        resume_from=resume_from,
        checkpoint_every_steps=checkpoint_every_steps,
        shrink_to_px=_SHRINK_TO_PX[engine] if tune.resize_images else None,
        output_folder=folder,
        device=settings.device,
    )
    job_file = folder / SPEC_FILE
    job_file.write_text(job.model_dump_json())
    return job_file


async def _fetched(blobs: Blobs, key: str, sha256: str, file: Path) -> bool:
    try:
        return (await _patiently(lambda: blobs.get_file(key, file))).sha256 == sha256
    except NotFoundError:
        return False


async def _patiently(fetch: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await fetch()
        except UnavailableError as error:
            log.warning("trainer.store_away", error=error.message)
        await asyncio.sleep(_RETRY_S)
