"""Reads files of weights in the confined child, and returns what the asset's `data` shows of them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from shared.database.tables import Asset
from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import readers, sandbox


async def lora_data(path: Path, asset: Asset) -> dict[str, Any]:
    """Read a LoRA; trigger words that the owner gave take precedence over the file's. Raises InvalidError."""
    info = await sandbox.read(readers.LORA, "the LoRA", path)
    _check_engine(asset, info.engine, "a LoRA")
    return {
        "data_type": info.data_type,
        "trigger_words": asset.data.get("trigger_words") or info.trigger_words,
        "base_sha256": info.base_sha256,
        "shape_class": info.shape_class,
        "rank": info.rank,
        "key_format": info.key_format,
    }


async def vae_data(path: Path, _asset: Asset) -> dict[str, Any]:
    """Read a VAE. Its file looks the same for SD 1.5 and SDXL, so its engine is not checked. Raises InvalidError."""
    info = await sandbox.read(readers.VAE, "the VAE", path)
    return {"data_type": info.data_type, "factor": info.factor, "latent_channels": info.latent_channels}


async def embedding_data(path: Path, asset: Asset) -> dict[str, Any]:
    """Read a textual inversion; trigger words that the owner gave take precedence over the file's. Raises InvalidError."""
    info = await sandbox.read(readers.EMBEDDING, "the textual inversion", path)
    _check_engine(asset, info.engine, "a textual inversion")
    # Where neither the owner nor the file has a word, users type the file's name.
    found = [info.trigger_word or asset.name]
    return {
        "data_type": info.data_type,
        "trigger_words": asset.data.get("trigger_words") or found,
        "widths": info.widths,
        "vectors": info.vectors,
    }


async def checkpoint_data(path: Path, asset: Asset) -> dict[str, Any]:
    """Read a checkpoint. Raises InvalidError."""
    info = await sandbox.read(readers.CHECKPOINT, "the checkpoint", path)
    # SSD is SDXL with fewer blocks: the files of both name the same engine.
    is_ssd = (asset.data["engine"], info.engine) == (Engine.SSD, Engine.SDXL)
    _check_engine(asset, Engine.SSD if is_ssd else info.engine, "a checkpoint")
    return info.data


def _check_engine(asset: Asset, found: Engine | None, what: str) -> None:
    if found is not None and found != asset.data["engine"]:
        msg = f"data.engine is {asset.data['engine']}, but the file is {what} for {found}; create the asset with that engine"
        raise InvalidError(msg)


READERS: dict[str, Callable[[Path, Asset], Awaitable[dict[str, Any]]]] = {
    "checkpoint": checkpoint_data,
    "lora": lora_data,
    "vae": vae_data,
    "textual_inversion": embedding_data,
}
