"""The checks of a request for a tune: its base and its files exist, are ready, and suit the options."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.schemas import CreateTune, Details
from shared.database.tables import Asset
from shared.engines import FAMILIES, Engine
from shared.errors import InvalidError
from shared.http import outbound
from shared.tunes import memory
from shared.tunes.options import Optimizer, Prior, default_parameters, default_prior, prior_batch_size

_DETAILS = ("body", "details")
_FILES = (*_DETAILS, "files")


@dataclass(frozen=True)
class Checked:
    """The assets that a request names; the files are in the request's order."""

    base: Asset
    files: dict[str, Asset]


async def check(session: AsyncSession, account_id: UUID, body: CreateTune, *, private_webhooks: bool) -> Checked:
    """Check a request and return the assets that it names. Raises InvalidError at the field that is wrong."""
    details = body.details
    base = await _base_checkpoint(session, account_id, details.base_checkpoint.checkpoint_id)
    _check_engine(details, base)
    _check_options(details, base)
    _check_prior(details)
    load, room = load_of(details, base), await repository.largest_gpu_bytes(session)
    if room is not None and memory.fitted(load, room) is None:
        msg = f"details: {memory.refusal(load, room)}"
        raise InvalidError(msg, loc=_DETAILS)
    if body.webhook is not None:
        outbound.check_url(body.webhook, field="webhook", loc=("body", "webhook"), allow_private=private_webhooks)
    files = await _training_images(session, account_id, [file.file_id for file in details.files])
    rejected = [asset for asset in files.values() if asset.status in {"rejected", "error"}]
    if rejected and not body.continue_on_rejection:
        first = rejected[0]
        msg = f"files: {first.id} was rejected: {first.status_details}; leave it out or set continue_on_rejection"
        raise InvalidError(msg, loc=_FILES)
    return Checked(base, files)


def _check_engine(details: Details, base: Asset) -> None:
    engine = base.data["engine"]
    if engine not in FAMILIES:
        msg = f"checkpoint_id: {base.name!r} is for {engine}; only checkpoints for {' and '.join(FAMILIES)} can be tuned"
        raise InvalidError(msg, loc=(*_DETAILS, "base_checkpoint", "checkpoint_id"))
    given = ((("engine",), details.engine), (("base_checkpoint", "engine"), details.base_checkpoint.engine))
    for field, value in given:
        if value is not None and value != engine:
            msg = f"engine: {value!r} is not the engine of the checkpoint {base.name!r}, which is {engine}; leave it out"
            raise InvalidError(msg, loc=(*_DETAILS, *field))


def _check_options(details: Details, base: Asset) -> None:
    native_px, resolution = base.data["native_size_px"], details.resolution
    if resolution is not None and not native_px / 2 <= resolution <= native_px * 2:
        limits = f"{native_px // 2} to {native_px * 2} px"
        msg = f"resolution: {resolution} px is out of range; the checkpoint {base.name!r} takes {limits}"
        raise InvalidError(msg, loc=(*_DETAILS, "resolution"))
    if details.text_encoder_learning_rate and details.train_text_encoder is False:
        msg = "text_encoder_learning_rate: it has no use while train_text_encoder is false; leave out one of them"
        raise InvalidError(msg, loc=(*_DETAILS, "text_encoder_learning_rate"))


def _check_prior(details: Details) -> None:
    if not details.subjects:
        msg = "files: all of them are regularization images; add images of the subject"
        raise InvalidError(msg, loc=_FILES)
    if len(details.subjects) < len(details.files) and details.prior not in {None, Prior.CLASS_IMAGES}:
        msg = f"prior: {details.prior} has no use for regularization images; choose class_images, or leave the images out"
        raise InvalidError(msg, loc=(*_DETAILS, "prior"))


def prior_of(details: Details) -> Prior:
    """Return the prior of a request: the one that it chooses, or the default."""
    captions = [file.caption_or(details.trigger_word) for file in details.subjects]
    own = len(captions) < len(details.files)
    return details.prior or default_prior(captions, details.trigger_word, own_class_images=own)


def load_of(details: Details, base: Asset) -> memory.Load:
    """Return what a request's training asks of a GPU."""
    engine, native_px = Engine(base.data["engine"]), base.data["native_size_px"]
    chosen = details.model_dump(include={"batch_size", "resolution", "rank", "train_text_encoder"}, exclude_none=True)
    complete = default_parameters(native_px) | chosen
    rows = complete["batch_size"] + (0 if prior_of(details) is Prior.NONE else prior_batch_size(complete["batch_size"]))
    return memory.Load(
        engine=engine,
        weights=memory.weights_of(engine, native_px, base.size_bytes, base.data.get("data_type")),
        rows=rows,
        resolution_px=complete["resolution"],
        rank=complete["rank"],
        optimizer=details.optimizer or Optimizer.ADAMW,
        trains_text=bool(details.text_encoder_learning_rate or complete.get("train_text_encoder")),
        samples=bool(details.validation_prompts),
    )


async def _base_checkpoint(session: AsyncSession, account_id: UUID, key: str) -> Asset:
    loc = (*_DETAILS, "base_checkpoint", "checkpoint_id")
    base = await repository.find_checkpoint(session, account_id, key)
    if base is None:
        msg = f"checkpoint_id: there is no checkpoint {key!r}; public ones are named octoai:NAME, e.g. octoai:default-sd15"
        raise InvalidError(msg, loc=loc)
    if base.status != "ready" or base.blob_key is None:
        why = f"{base.status}: {base.status_details}" if base.status_details else base.status
        msg = f"checkpoint_id: the checkpoint {key!r} is not ready but {why}; wait until it is ready, or name another"
        raise InvalidError(msg, loc=loc)
    return base


async def _training_images(session: AsyncSession, account_id: UUID, ids: Sequence[str]) -> dict[str, Asset]:
    found = await repository.find_assets(session, account_id, ids)
    for position, asset_id in enumerate(ids):
        loc = (*_FILES, position, "file_id")
        if asset_id not in found:
            msg = f"file_id: there is no file {asset_id!r}; upload it first"
            raise InvalidError(msg, loc=loc)
        if found[asset_id].asset_type != "file":
            msg = f"file_id: {asset_id} is a {found[asset_id].asset_type}, not an image; name assets of the type file"
            raise InvalidError(msg, loc=loc)
        if found[asset_id].status == "ready_to_upload":
            msg = f"file_id: {asset_id} was never uploaded; PUT its bytes and call complete-upload first"
            raise InvalidError(msg, loc=loc)
    return {asset_id: found[asset_id] for asset_id in ids}
