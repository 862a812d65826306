"""The checkpoints that come with the project, as public assets of the platform."""

import asyncio
import tempfile
from pathlib import Path

from deploy.local.paths import PROJECT
from services.upload import public_assets
from shared import checkpoint_files
from shared.blobs import Blobs
from shared.db import Database

SHIPPED = PROJECT / "deploy" / "checkpoints"
_ALIASES = {
    # What stands for the full-size checkpoints until an operator brings them; the id is the one OctoAI's clients know.
    "tiny-sd15": ("default-sd15", None),
    "tiny-sdxl": ("default-sdxl", "asset_01hdpjv7bxe1n99eazrv23ca1k"),
}


async def register_shipped(database: Database, blobs: Blobs, folder: Path = SHIPPED) -> None:
    """Register each shipped checkpoint and the default that it stands for. What is there already is left alone."""
    for name, (alias, asset_id) in _ALIASES.items():
        if not (folder / name).is_dir():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch) / f"{name}.tar"
            await asyncio.to_thread(checkpoint_files.pack, folder / name, packed)
            await public_assets.register_checkpoint(database, blobs, packed, name=name)
        await public_assets.ensure_alias(database, name=alias, of=name, asset_id=asset_id)
