"""The parts of the upload service on real backends, with accounts that call it and files to upload."""

import io
import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
from PIL import Image
from sqlalchemy import func, select

from services.upload import api
from services.upload.downloads import Downloads
from services.upload.imports.fetching import Fetcher
from services.upload.imports.importer import Importer
from services.upload.intake.check import Intake
from services.upload.intake.register import Registration
from services.upload.reconciler import Reconciler
from services.upload.service import Library
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.accounts import names
from shared.accounts.accounts import SCOPES
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset, Blob, Context, Tune
from shared.http.outbound import Resolve
from shared.ids import new_id
from tests.support.world import World, routes_alone

ORIGIN = "http://upload.test"


def png(size: tuple[int, int] = (64, 64), colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(size: tuple[int, int] = (64, 64), colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def safetensors(tensors: dict[str, list[int]], metadata: dict[str, str] | None = None, dtype: str = "F16") -> bytes:
    """Write a safetensors file with tensors of zeros of these shapes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, shape in tensors.items():
        size = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


def lora(features: int = 768, rank: int = 4, metadata: dict[str, str] | None = None) -> bytes:
    # SDXL has attention from its second level on.
    level, width = (1, 640) if features == 2048 else (0, 320)
    module = f"unet.down_blocks.{level}.attentions.0.transformer_blocks.0.attn2.to_k"
    shapes = {f"{module}.lora.down.weight": [rank, features], f"{module}.lora.up.weight": [width, rank]}
    return safetensors(shapes, metadata)


LORA = lora(rank=8, metadata={"trigger_word": "sks1"})


@dataclass(kw_only=True)
class UploadWorld(World):
    """The parts of one upload service, and clients of an account, of a stranger and of the account's admin key."""

    context = Context.UPLOAD
    settings: UploadSettings
    account_id: UUID
    client: httpx.AsyncClient
    stranger: httpx.AsyncClient
    admin: httpx.AsyncClient
    intake: Intake
    registration: Registration
    reconciler: Reconciler
    queue: WorkQueue
    importer: Importer
    fetcher: Fetcher

    @classmethod
    async def build(
        cls, settings: UploadSettings, database: Database, blobs: Blobs, resolve: Resolve | None = None
    ) -> "UploadWorld":
        fetcher = Fetcher(settings, resolve=resolve)
        library = Library(blobs, settings)
        importer = Importer(database, blobs, settings, fetcher)
        queue = WorkQueue(settings.intake_concurrency)
        registration = Registration(database, blobs, settings)

        downloads = api.download_routes(database, library, Downloads(database, blobs, settings))
        app = routes_alone("upload", database, [api.router(database, library, blobs, importer), downloads])
        base = World(database=database, blobs=blobs)
        studio = await base.account("studio")
        return cls(
            database=database,
            blobs=blobs,
            settings=settings,
            account_id=studio,
            client=await base.connect(app, studio, origin=ORIGIN),
            stranger=await base.connect(app, await base.account("stranger"), origin=ORIGIN),
            admin=await base.connect(app, studio, *SCOPES, origin=ORIGIN),
            intake=Intake(database, blobs, settings),
            registration=registration,
            reconciler=Reconciler(database, settings, registration, queue),
            queue=queue,
            importer=importer,
            fetcher=fetcher,
        )

    async def create(self, name: str = "photo", asset_type: str = "file", **more: Any) -> dict[str, Any]:
        data = {"asset_type": asset_type} | more.pop("data", {})
        answer = await self.client.post("/v1/assets", json={"name": name, "asset_type": asset_type, "data": data} | more)
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()

    async def send(self, content: bytes, name: str = "photo", asset_type: str = "file", **more: Any) -> str:
        """Create an asset, upload its file and complete the upload; return the asset's id."""
        created = await self.create(name, asset_type, **more)
        asset_id = created["asset"]["id"]
        async with httpx.AsyncClient() as store:
            put = await store.put(created["transfer_api"]["put_url"], content=content)
        assert put.status_code == httpx.codes.OK, put.text
        done = await self.client.post(f"/v1/assets/{asset_id}/complete-upload", json={"token": ""})
        assert (done.status_code, done.json()) == (httpx.codes.OK, {"error": None}), done.text
        return asset_id

    async def shown(self, key: str) -> dict[str, Any]:
        answer = await self.client.get(f"/v1/assets/{key}")
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()["asset"]

    async def row(self, asset_id: str) -> Asset:
        async with self.database.begin() as session:
            return await session.get_one(Asset, asset_id)

    async def blob_state(self, key: str | None) -> str | None:
        async with self.database.begin() as session:
            return await session.scalar(select(Blob.state).where(Blob.key == key))

    async def add_trained_tune(self, content: bytes = LORA, name: str = "sks1-dog") -> str:
        """Store a LoRA as a trainer does, and return the id of its tune, which is `publishing`.

        The row has the SHA-256 of `LORA` for any content.
        """
        tune_id = new_id("tune")
        base_key, lora_key = f"assets/{tune_id}/base.tar", f"tunes/{tune_id}/1/lora.safetensors"
        await self.put_row(base_key)
        await self.put(lora_key, content, Context.TUNES)
        async with self.database.begin() as session:
            await names.reserve(session, self.account_id, name, "tune", tune_id)
            session.add(
                Tune(
                    id=tune_id,
                    account_id=self.account_id,
                    name=name,
                    base_asset_id="asset_base",
                    base_name="octoai:tiny-sd15",
                    engine="image/stable-diffusion-v1-5",
                    base_blob_key=base_key,
                    base_sha256="ab" * 32,
                    shape_class="sd15-3f2a9c1d",
                    native_size_px=64,
                    steps=10,
                    step=10,
                    seed=1,
                    trigger_word="sks1",
                    request={},
                    state="publishing",
                    lease_epoch=1,
                    lora_key=lora_key,
                    lora_sha256=sha256(LORA).hexdigest(),
                    lora_size_bytes=len(LORA),
                    trained_at=func.now(),
                )
            )
        return tune_id

    async def close(self) -> None:
        for client in (self.client, self.stranger, self.admin):
            await client.aclose()
        await self.fetcher.close()
