"""Puts the images of a request into the store, with their thumbnails."""

import asyncio
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from services.inference.inputs import DrawnImage, StoredImage
from services.inference.worker.previews import thumbnail
from services.inference.worker.repository import Claim
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Context

_CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
_LIBRARIES = ("tunesmith", "torch", "diffusers", "transformers")
"""Those whose releases may change an image."""


async def store(
    database: Database, blobs: Blobs, held: Claim, drawn: Sequence[DrawnImage]
) -> tuple[list[StoredImage], dict[str, Stored]]:
    """Store the images, and return them with what was stored; its rows are committed together with the result."""
    images = [_described(held, number, image) for number, image in enumerate(drawn)]
    files = {image.key: one.data for image, one in zip(images, drawn, strict=True) if image.key and one.data}
    if held.inputs.with_previews:
        files |= await asyncio.to_thread(_thumbnails, images, drawn)
    kinds = {key: _CONTENT_TYPES[key.rpartition(".")[2]] for key in files}
    async with database.begin() as session:
        for key, kind in kinds.items():
            await blob_rows.stage(session, Context.IMAGES, key, content_type=kind)
    return images, {key: await blobs.put_bytes(key, data, kinds[key]) for key, data in files.items()}


@cache
def versions() -> dict[str, str]:
    """Return the releases of the libraries that draw. One that is not installed as a package has none."""
    found: dict[str, str] = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _described(held: Claim, number: int, image: DrawnImage) -> StoredImage:
    place = f"generations/{held.generation_id}/{held.epoch}/{number}"
    is_there = image.data is not None
    return StoredImage(
        key=f"{place}.{held.inputs.image_encoding}" if is_there else None,
        thumbnail_key=f"{place}.thumbnail.webp" if is_there and held.inputs.with_previews else None,
        seed=held.inputs.seeds[number],
        removed_for_safety=not is_there,
        safety_score=image.safety_score,
    )


def _thumbnails(images: Sequence[StoredImage], drawn: Sequence[DrawnImage]) -> dict[str, bytes]:
    pairs = zip(images, drawn, strict=True)
    return {image.thumbnail_key: thumbnail(one.data) for image, one in pairs if image.thumbnail_key and one.data}
