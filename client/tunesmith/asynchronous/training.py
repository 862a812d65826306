"""Uploads the images of a tune, except those that an earlier call has uploaded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import image_files
from tunesmith.asynchronous import runtime
from tunesmith.errors import TunesmithApiError
from tunesmith.folders import TrainingFolder
from tunesmith.image_files import shown
from tunesmith.models import Asset

if TYPE_CHECKING:
    from tunesmith.asynchronous.assets import AsyncAssets

AT_ONCE = 4
"""Uploads at a time. One image leaves a connection idle while the server answers."""
Say = Callable[[str], object]


async def upload_images(
    client: "AsyncAssets",
    tune_name: str,
    folder: TrainingFolder,
    *,
    on_note: Say | None = None,
    on_bytes: Callable[[Path, int], object] | None = None,
) -> list[tuple[str, str | None]]:
    """Return the id and the caption of each image, once the server has checked them all.

    `on_note` is told which images are in the library already, and `on_bytes` how much of a file was sent. Raises
    TunesmithApiError that names every image that the server rejects.
    """
    say: Say = on_note or (lambda _: None)
    plans = await _planned(client, tune_name, folder.images, say)

    async def ready(plan: tuple[Path, str, Asset | None, Asset | None]) -> tuple[Asset | None, str]:
        file, name, usable, stale = plan
        if usable is None:
            if stale is not None:
                await client.delete_asset(stale.id)
            sent = partial(on_bytes, file) if on_bytes else None
            usable = await client.upload(file, name=name, on_bytes=sent)
        try:
            return usable if usable.status == "ready" else await client.wait_for_asset(usable), ""
        except TunesmithApiError as error:
            return None, f"{shown(file)}: {error}"

    made = await runtime.each(plans, ready, AT_ONCE)
    if refusals := [refusal for _, refusal in made if refusal]:
        raise TunesmithApiError(0, "rejected", "\nerror: ".join(refusals))
    return [(asset.id, caption) for (asset, _), caption in zip(made, folder.captions, strict=True) if asset]


async def _planned(
    client: "AsyncAssets", tune_name: str, files: list[Path], say: Say
) -> list[tuple[Path, str, Asset | None, Asset | None]]:
    """Return each file with the name of its asset, the asset if it is in the library, and one that holds only the name."""
    digests = [image_files.content_hash(file) for file in files]
    names: list[str] = []
    for file, digest in zip(files, digests, strict=True):
        names.append(image_files.asset_name(tune_name, file, digest, names))
    known = {item.name: item for item in await client.assets(asset_type="file")}
    free = {name: item for name, item in known.items() if item.is_usable}
    found = {name: free.pop(name) for name in names if name in free}
    plans: list[tuple[Path, str, Asset | None, Asset | None]] = []
    for file, digest, name in zip(files, digests, names, strict=True):
        asset = found.get(name) or _renamed(free, tune_name, digest)
        if asset:
            say(f"{shown(file)}: using {asset.name}, which is already uploaded")
        elif image_files.is_cut(name, tune_name, file):
            say(f"{shown(file)}: the name of its asset is cut to {image_files.MAX_NAME} characters: {name}")
        # An asset that was rejected or never completed holds the name.
        plans.append((file, name, asset, None if asset else known.get(name)))
    return plans


def _renamed(free: dict[str, Asset], tune_name: str, digest: str) -> Asset | None:
    """Take an asset of the tune with the same content out of `free`: its file has another name by now."""
    same = (name for name in free if name.startswith(f"{tune_name}-") and name.endswith(f"-{digest}"))
    name = next(same, None)
    return free.pop(name) if name else None
