"""What a tune is trained from, downloaded into its job's folder."""

from pathlib import Path

from services.trainer.engine.config import JOB_FILE, Job, TrainingImage, resolve_parameters
from services.trainer.engine.errors import BadBaseError, BadCheckpointError, BadImageError
from services.trainer.settings import TrainerSettings
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs
from shared.engines import Engine
from shared.errors import InvalidError, NotFoundError
from shared.failures import retry_while_unavailable
from shared.tunes.leases import Claim
from shared.tunes.options import default_prior

_STORE_UNAVAILABLE = "trainer.store_unavailable"
_SHRINK_TO_PX = {Engine.SD15: 512, Engine.SDXL: 1024}
"""What `resize_images` means, as in OctoAI's API."""


async def prepare(claim: Claim, folder: Path, blobs: Blobs, bases: CheckpointCache, settings: TrainerSettings) -> Path:
    """Download the base, the images and the last checkpoint, write the job's file, and return its path.

    Waits without a bound while the store is unavailable. Raises the errors of `services.trainer.engine.errors`.
    """
    tune = claim.tune
    engine = Engine(tune.engine)
    chosen = dict(tune.parameters)
    checkpoint_every_steps = chosen.pop("checkpoint_every_steps", settings.checkpoint_every_steps)
    subjects = [image.caption for image in claim.files if not image.regularization]
    own_class_images = len(subjects) < len(claim.files)
    chosen.setdefault("prior", default_prior(subjects, tune.trigger_word, own_class_images=own_class_images))
    # Before the downloads, which take long: a number outside its limits fails the tune at once.
    parameters = resolve_parameters(tune.native_size_px, chosen)
    try:
        base_folder = await retry_while_unavailable(
            lambda: bases.fetch(tune.base_blob_key, tune.base_sha256), log_event=_STORE_UNAVAILABLE, key=tune.base_blob_key
        )
    except (NotFoundError, InvalidError) as error:
        msg = f"the base checkpoint {tune.base_name} cannot be used: {error.message}; tune another one, or upload this one again"
        raise BadBaseError(msg) from error
    images: list[TrainingImage] = []
    for image in claim.files:
        file = folder / f"image-{image.position}{Path(image.blob_key).suffix}"
        if not await _download(blobs, image.blob_key, image.sha256, file):
            msg = f"files[{image.position}]: the stored image is missing or damaged; upload it again and start a new tune"
            raise BadImageError(msg)
        images.append(TrainingImage(file=file, caption=image.caption, regularization=image.regularization))
    if not subjects:
        msg = "files: no training image passed the intake; upload others and start a new tune"
        raise BadImageError(msg)
    resume_from = None
    if claim.resume:
        resume_from = folder / f"resume-{claim.resume.step}.safetensors"
        if not await _download(blobs, claim.resume.blob_key, claim.resume.sha256, resume_from):
            msg = f"the checkpoint of step {claim.resume.step} is missing or damaged; start a new tune"
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
    job_file = folder / JOB_FILE
    job_file.write_text(job.model_dump_json())
    return job_file


async def _download(blobs: Blobs, key: str, sha256: str, file: Path) -> bool:
    """Download a blob; False when it is missing or its bytes are not those that were stored."""
    try:
        stored = await retry_while_unavailable(lambda: blobs.get_file(key, file), log_event=_STORE_UNAVAILABLE, key=key)
    except NotFoundError:
        return False
    return stored.sha256 == sha256
