"""The checkpoints that come with the project, registered as public assets of the platform."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.local.paths import PROJECT
from services.upload import public_assets
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import checkpoint

SHIPPED = PROJECT / "deploy" / "checkpoints"


@dataclass(frozen=True)
class Default:
    """A public name that can stand for different checkpoints, and the shipped one that it stands for at first."""

    engine: Engine
    shipped: str
    asset_id: str | None = None
    """The id that OctoAI's clients use for it."""


# The ControlNets are named as OctoAI's public ones were.
DEFAULTS = {
    "default-sd15": Default(Engine.SD15, "tiny-sd15"),
    "default-sdxl": Default(Engine.SDXL, "tiny-sdxl", "asset_01hdpjv7bxe1n99eazrv23ca1k"),
    "canny_sd15": Default(Engine.CONTROLNET_SD15, "tiny-canny-sd15"),
    "canny_sdxl": Default(Engine.CONTROLNET_SDXL, "tiny-canny-sdxl"),
}


async def register_shipped(database: Database, blobs: Blobs, folder: Path = SHIPPED) -> None:
    """Register each shipped checkpoint, and the default name that stands for it. A name that an operator switched stays."""
    for alias, default in DEFAULTS.items():
        name = default.shipped
        if not (folder / name).is_dir():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            packed = Path(scratch) / f"{name}.tar"
            await asyncio.to_thread(checkpoint.pack, folder / name, packed)
            await public_assets.register_checkpoint(database, blobs, packed, name=name)
        await public_assets.ensure_alias(database, name=alias, of=name, asset_id=default.asset_id)


async def use(database: Database, name: str, alias: str) -> None:
    """Let the default name `octoai:{alias}` stand for the public checkpoint `octoai:{name}`.

    Raises NotFoundError for an unknown checkpoint, and InvalidError for an unknown default name or another engine.
    """
    default = DEFAULTS.get(alias)
    if default is None:
        msg = f"{alias!r} is no default name: choose one of {', '.join(DEFAULTS)}"
        raise InvalidError(msg)
    await public_assets.switch_alias(database, name=alias, of=name, asset_id=default.asset_id, engine=default.engine)
