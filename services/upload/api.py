"""The asset library's HTTP API."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncSession

from services.upload.downloads import Downloads
from services.upload.imports.importer import Importer
from services.upload.repository import Filters, get, page
from services.upload.schemas import (
    AssetAnswer,
    AssetCreate,
    AssetCreated,
    AssetDeleted,
    AssetList,
    Download,
    TransferType,
    UploadCompleted,
)
from services.upload.service import Library, shown
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.errors import InvalidError
from shared.formats.lora.layouts import LoraLayout
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import GuardedRoute
from shared.ids import new_id

Caller = Annotated[Principal, Depends(require("assets"))]
Status = Literal["ready_to_upload", "uploaded", "ready", "rejected", "error"]
Repeatable = Annotated[list[str] | None, Query()]


def router(database: Database, library: Library, blobs: Blobs, importer: Importer) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1/assets", tags=["assets"], route_class=GuardedRoute)

    @routes.post("", summary="Create an asset and get the URL to upload it to")
    async def create(caller: Caller, once: Once, request: AssetCreate) -> AssetCreated:
        asset_id = new_id("asset")
        async with database.begin(turn_of=caller.account_id) as session:
            # Keep a reference instead of the response: it holds credentials, which are never stored. A retry gets new ones.
            known_id = await once.refer(session, Context.UPLOAD, caller, asset_id)
            if known_id == asset_id:
                asset = await library.create(session, caller, request, asset_id)
            else:
                asset = await library.own_by_id(session, caller.account_id, known_id)
            await library.expect_parts(session, asset, request.transfer_api_type)
        if request.is_import and known_id == asset_id:
            importer.start(asset.id, caller.account_id, request.hf_token_secret)
        return AssetCreated(asset=shown(asset), transfer_api=await library.transfer(asset, request.transfer_api_type))

    @routes.post("/{asset_id}/complete-upload", summary="Complete an upload whose file is in the store")
    async def complete_upload(caller: Caller, once: Once, asset_id: str) -> UploadCompleted:
        async with database.begin() as session:
            asset = await library.own_by_id(session, caller.account_id, asset_id)
        if asset.status == "ready_to_upload" and asset.staging_key:
            # Ask the store outside of any transaction: it may be slow, and a transaction occupies a database connection.
            async with _deleted_if_refused(database, blobs, asset):
                size_bytes = library.check_size(asset, await blobs.size(asset.staging_key))
        else:
            size_bytes = asset.size_bytes

        async def work(session: AsyncSession) -> UploadCompleted:
            await library.complete(session, asset, size_bytes)
            return UploadCompleted()

        # What the account has no room for is deleted later, by the check of staging: SDKs retry a 429 and need its reason again.
        return await once.run(database, Context.UPLOAD, caller, work, in_turn=True)

    @routes.get("", summary="List assets, by default newest first")
    async def list_assets(
        caller: Caller,
        *,
        name: str | None = None,
        is_public: bool = False,
        owner: Annotated[str | None, Query(description="`octoai` for the public assets, or an account's id.")] = None,
        asset_type: Repeatable = None,
        engine: Repeatable = None,
        engine_type: str | None = None,
        data_type: str | None = None,
        file_format: Repeatable = None,
        asset_ids: Annotated[str | None, Query(description="Ids, separated by commas.")] = None,
        q: Annotated[
            str | None, Query(max_length=200, description="A part of the name, the description or a trigger word.")
        ] = None,
        status: Annotated[list[Status] | None, Query(description="Only assets with one of these.")] = None,
        sort: Literal["newest", "oldest", "name", "largest"] = "newest",
        get_preview_urls: bool = False,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> AssetList:
        filters = Filters(
            name=name or None,
            owner=owner or None,
            is_public=is_public,
            asset_types=_split(asset_type),
            engines=_split(engine),
            engine_type=engine_type or None,
            data_type=data_type or None,
            file_formats=_split(file_format),
            asset_ids=_split([asset_ids] if asset_ids else None),
            words=q or None,
            statuses=list(status or []),
            sort=sort,
        )
        async with database.begin() as session:
            found, total = await page(session, caller.account_id, filters, limit=limit, offset=offset)
        show = library.shown_with_urls if get_preview_urls else shown
        data = [show(asset, is_own=asset.account_id == caller.account_id) for asset in found]
        return AssetList(data=data, has_more=offset + len(data) < total, total=total)

    @routes.get("/{asset_owner_and_name_or_id}", summary="Get an asset by its id, its name or octoai:NAME")
    async def get_asset(
        caller: Caller,
        asset_owner_and_name_or_id: str,
        transfer_api_type: TransferType | None = None,
    ) -> AssetAnswer:
        async with database.begin() as session:
            asset = await library.find(session, caller.account_id, asset_owner_and_name_or_id)
            is_own = asset.account_id == caller.account_id
            await library.expect_parts(session, asset, transfer_api_type, is_own=is_own)
        transfer = await library.transfer(asset, transfer_api_type, is_own=is_own)
        return AssetAnswer(asset=shown(asset, is_own=is_own), transfer_api=transfer)

    @routes.delete("/{asset_id}", summary="Delete an asset and free its name")
    async def delete(caller: Caller, asset_id: str) -> AssetDeleted:
        async with database.begin() as session:
            asset = await library.delete(session, caller.account_id, asset_id)
        assert asset.deleted_at is not None  # noqa: S101 - the schema's CHECK
        return AssetDeleted(id=asset.id, deleted_at=asset.deleted_at)

    return routes


def download_routes(database: Database, library: Library, downloads: Downloads) -> APIRouter:
    """Build the routes of files to take along."""
    routes = APIRouter(prefix="/v1/assets", tags=["assets"], route_class=GuardedRoute)

    @routes.get("/{asset_owner_and_name_or_id}/download", summary="Get the link to an asset's file")
    async def download(
        caller: Caller,
        asset_owner_and_name_or_id: str,
        layout: Annotated[
            LoraLayout | None,
            Query(
                alias="format",
                description="For a LoRA: `kohya` for AUTOMATIC1111's web UI, ComfyUI, Forge and InvokeAI, or `diffusers`. "
                "Without it the file is as it was sent or trained.",
            ),
        ] = None,
    ) -> Download:
        async with database.begin() as session:
            asset = await library.find(session, caller.account_id, asset_owner_and_name_or_id)
        return await downloads.get(asset, layout, is_own=asset.account_id == caller.account_id)

    return routes


def _split(values: list[str] | None) -> list[str]:
    """Return the values of a repeatable parameter; one SDK sends them as a single value with commas."""
    return [word for value in values or [] for word in value.split(",") if word]


@asynccontextmanager
async def _deleted_if_refused(database: Database, blobs: Blobs, asset: Asset) -> AsyncGenerator[None]:
    """Delete the bytes of an upload that are more than such an asset, or its declared size, may have."""
    try:
        yield
    except InvalidError:
        async with database.begin() as session:
            now = await get(session, asset.id)
        if now is not None and now.status == "ready_to_upload" and now.staging_key:
            await blobs.delete(now.staging_key)
        raise
