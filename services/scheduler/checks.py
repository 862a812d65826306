"""What is looked up before a tune is accepted: its base, its files, and whether they go together with what was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.schemas import CreateTune, Details
from shared.database.tables import Asset
from shared.engines import FAMILIES
from shared.errors import InvalidError
from shared.http import outbound

_DETAILS = ("body", "details")
FILES = (*_DETAILS, "files")


@dataclass(frozen=True)
class Checked:
    """What a request names, as the library has it; the files in the request's order."""

    base: Asset
    files: dict[str, Asset]


async def check(session: AsyncSession, account_id: UUID, body: CreateTune, *, private_webhooks: bool) -> Checked:
    """Look up what the request names. Raises InvalidError at the field that is wrong."""
    details = body.details
    base = await _base_checkpoint(session, account_id, details.base_checkpoint.checkpoint_id)
    _check_engine(details, base)
    _check_options(details, base)
    if body.webhook is not None:
        outbound.check_url(body.webhook, field="webhook", loc=("body", "webhook"), allow_private=private_webhooks)
    files = await _training_images(session, account_id, [file.file_id for file in details.files])
    rejected = [asset for asset in files.values() if asset.status in {"rejected", "error"}]
    if rejected and not body.continue_on_rejection:
        first = rejected[0]
        msg = f"files: {first.id} was rejected: {first.status_details}; leave it out or set continue_on_rejection"
        raise InvalidError(msg, loc=FILES)
    return Checked(base, files)


def _check_engine(details: Details, base: Asset) -> None:
    engine = base.data["engine"]
    if engine not in FAMILIES:
        msg = f"base_checkpoint: {base.name!r} is for {engine}; only checkpoints for {' and '.join(FAMILIES)} can be tuned"
        raise InvalidError(msg, loc=(*_DETAILS, "base_checkpoint", "checkpoint_id"))
    given = (("engine", details.engine), ("base_checkpoint", details.base_checkpoint.engine))
    for field, said in given:
        if said is not None and said != engine:
            msg = f"engine: {said!r} is not the engine of the checkpoint {base.name!r}, which is {engine}; leave it out"
            loc = (*_DETAILS, "engine") if field == "engine" else (*_DETAILS, field, "engine")
            raise InvalidError(msg, loc=loc)


def _check_options(details: Details, base: Asset) -> None:
    native_px, resolution = base.data["native_size_px"], details.resolution
    if resolution is not None and not native_px / 2 <= resolution <= native_px * 2:
        msg = f"resolution: {resolution} px; the checkpoint {base.name!r} takes {native_px // 2} to {native_px * 2} px"
        raise InvalidError(msg, loc=(*_DETAILS, "resolution"))
    if details.text_encoder_learning_rate and details.train_text_encoder is False:
        msg = "text_encoder_learning_rate: goes with train_text_encoder, which is false"
        raise InvalidError(msg, loc=(*_DETAILS, "text_encoder_learning_rate"))


async def _base_checkpoint(session: AsyncSession, account_id: UUID, key: str) -> Asset:
    loc = (*_DETAILS, "base_checkpoint", "checkpoint_id")
    base = await repository.find_checkpoint(session, account_id, key)
    if base is None:
        msg = f"checkpoint_id: there is no checkpoint {key!r}; public ones are named octoai:NAME, e.g. octoai:default-sd15"
        raise InvalidError(msg, loc=loc)
    if base.status != "ready" or base.blob_key is None:
        msg = f"checkpoint_id: the checkpoint {key!r} is not ready but {base.status} {base.status_details}".rstrip()
        raise InvalidError(msg, loc=loc)
    return base


async def _training_images(session: AsyncSession, account_id: UUID, ids: Sequence[str]) -> dict[str, Asset]:
    found = await repository.find_assets(session, account_id, ids)
    for position, asset_id in enumerate(ids):
        loc = (*FILES, position, "file_id")
        if asset_id not in found:
            msg = f"file_id: there is no file {asset_id!r}"
            raise InvalidError(msg, loc=loc)
        if found[asset_id].asset_type != "file":
            msg = f"file_id: {asset_id} is a {found[asset_id].asset_type}, not an image file"
            raise InvalidError(msg, loc=loc)
        if found[asset_id].status == "ready_to_upload":
            msg = f"file_id: {asset_id} was never uploaded; PUT its bytes and call complete-upload first"
            raise InvalidError(msg, loc=loc)
    return {asset_id: found[asset_id] for asset_id in ids}
