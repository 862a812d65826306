"""Uploads the images of a tune, except those that an earlier call has uploaded, and pairs them with their captions."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith import captions, image_files
from tunesmith.client import Client, TunesmithApiError
from tunesmith.image_files import shown
from tunesmith.local import fail, say
from tunesmith.models import Asset


def pairs(client: Client, tune_name: str, files: Sequence[Path]) -> list[tuple[str, str | None]]:
    """Return the id and the caption of each image, once the server has checked them all.

    Exits with 1 when a caption cannot be read, before anything is uploaded, and when the server rejects an image.
    """
    texts = [_caption(file) for file in files]
    assets = _upload(client, tune_name, files)
    _wait(client, assets, files)
    return [(asset.id, text) for asset, text in zip(assets, texts, strict=True)]


def _caption(file: Path) -> str | None:
    try:
        found = captions.caption_of(file)
    except captions.CaptionError as error:
        fail(str(error))
    if found and found.note:
        say(f"note: {found.note}")
    return found.text if found else None


def _upload(client: Client, tune_name: str, files: Sequence[Path]) -> list[Asset]:
    digests = [image_files.content_hash(file) for file in files]
    names: list[str] = []
    for file, digest in zip(files, digests, strict=True):
        names.append(image_files.asset_name(tune_name, file, digest, names))
    # Assets that were rejected or never completed hold the names, too.
    known = {item.name: item for item in client.assets(asset_type="file")}
    usable = {name: item for name, item in known.items() if item.status in {"uploaded", "ready"}}
    found = {name: usable.pop(name) for name in names if name in usable}
    assets: list[Asset] = []
    for file, digest, name in zip(files, digests, names, strict=True):
        asset = found.get(name) or _renamed(usable, tune_name, digest)
        if asset:
            say(f"{shown(file)}: using {asset.name}, which is already uploaded", style="dim")
        else:
            if image_files.is_cut(name, tune_name, file):
                say(f"note: {shown(file)}: the name of its asset is cut to {image_files.MAX_NAME} characters: {name}")
            if name in known:
                client.delete_asset(known[name].id)
            asset = client.upload(file, name=name)
        assets.append(asset)
    return assets


def _renamed(usable: dict[str, Asset], tune_name: str, digest: str) -> Asset | None:
    """Take an asset of the tune with the same content out of `usable`: its file has another name by now."""
    same = (name for name in usable if name.startswith(f"{tune_name}-") and name.endswith(f"-{digest}"))
    name = next(same, None)
    return usable.pop(name) if name else None


def _wait(client: Client, assets: Sequence[Asset], files: Sequence[Path]) -> None:
    refusals: list[str] = []
    for asset, file in zip(assets, files, strict=True):
        try:
            if asset.status != "ready":
                client.wait_for_asset(asset)
        except TunesmithApiError as error:
            refusals.append(f"{shown(file)}: {error}")
    if refusals:
        fail("\nerror: ".join(refusals))
