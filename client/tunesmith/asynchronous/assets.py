"""The asset library."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tunesmith import asset_files, image_files
from tunesmith.asynchronous import runtime
from tunesmith.asynchronous.transport import AsyncTransport
from tunesmith.errors import TunesmithApiError
from tunesmith.image_files import shown
from tunesmith.models import Asset
from tunesmith.wire import asset_body, upload_data

_POLL_S = 0.5


class AsyncAssets(AsyncTransport):
    """The part of the client for images, LoRAs, checkpoints, VAEs and textual inversions."""

    async def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        asset_type: str = "file",
        engine: str | None = None,
        data: dict[str, Any] | None = None,
        description: str = "",
        is_public: bool = False,
        on_bytes: Callable[[int], object] | None = None,
        on_created: Callable[[str], object] | None = None,
    ) -> Asset:
        """Upload a file into the library and return the new asset, which the server has still to check.

        Without `name`, the asset's name is made from the file's. `data` holds more fields of the asset's `data`, for example
        `{"trigger_words": ["sks1"]}`. `on_created` is told the asset's id before the file is sent, and `on_bytes` how many bytes
        have been sent.

        >>> asset = await client.upload("photos/spot.png")
        >>> asset.name, asset.status
        ('spot', 'ready')
        """
        path = Path(path)
        if asset_files.size(path) == 0:
            raise TunesmithApiError(0, "empty", f"{shown(path)}: the file is empty: save it again, and upload it then")
        name = name or image_files.default_name(path)
        given = upload_data(path, asset_type, engine) | (data or {})
        more = {"description": description, "is_public": is_public, "size_bytes": asset_files.size(path)}
        try:
            created = await self._call("POST", "/v1/assets", json=asset_body(name, asset_type, given, **more))
            if on_created:
                on_created(created["asset"]["id"])
            return await self._send_file(created["asset"]["id"], created["transfer_api"]["put_url"], path, on_bytes)
        except TunesmithApiError as error:
            raise TunesmithApiError(error.status, error.code, f"{shown(path)}: {error}") from error

    async def resume_upload(self, asset: Asset, path: str | Path, *, on_bytes: Callable[[int], object] | None = None) -> Asset:
        """Upload the file of an asset that was created, but whose upload was cut off."""
        path = Path(path)
        found = await self._call("GET", f"/v1/assets/{asset.id}")
        return await self._send_file(asset.id, found["transfer_api"]["put_url"], path, on_bytes)

    async def _send_file(self, asset_id: str, url: str, path: Path, on_bytes: Callable[[int], object] | None) -> Asset:
        await self._put(url, path, on_bytes)
        await self._call("POST", f"/v1/assets/{asset_id}/complete-upload", json={"token": ""})
        return await self.asset(asset_id)

    async def download(
        self,
        name_or_id: str,
        path: str | Path | None = None,
        *,
        layout: str | None = None,
        on_bytes: Callable[[int], object] | None = None,
    ) -> Path:
        """Download an asset's file and return its path. A download that was cut off is continued.

        Without `path`, the file is named after the asset and lies in the working directory. `path` may be a folder. A file
        that exists is replaced. `layout` is `kohya` or `diffusers`, for a LoRA that other programs are to read.

        >>> await client.download("rex", "photos")
        PosixPath('photos/rex.png')
        """
        found = await self._call("GET", f"/v1/assets/{name_or_id}")
        asset = Asset.model_validate(found["asset"])
        if not found["transfer_api"].get("get_url"):
            msg = f"{asset.name} is {asset.status}, so it has no file to download: wait until it is ready"
            raise TunesmithApiError(0, "not_ready", msg)
        folder, name = asset_files.target(path)
        # Of the asset's own: its bytes never change, so that what is there can be continued.
        part, url = folder / f".{asset.id}.{layout or 'sent'}.part", found["transfer_api"]["get_url"]
        if layout:
            converted = await self._call("GET", f"/v1/assets/{asset.id}/download", params={"format": layout})
            name, url = name or converted["file_name"], converted["url"]
        await self._fetch(url, part, on_bytes)
        return asset_files.finish(part, folder, name or asset.name, has_name=name is not None)

    async def import_asset(
        self,
        url: str | None = None,
        *,
        name: str,
        asset_type: str,
        data: dict[str, Any],
        description: str = "",
        is_public: bool = False,
        hf_repo: str | None = None,
        hf_token: str | None = None,
    ) -> Asset:
        """Let the server download a file into the library, and return the new asset before the download is done.

        The file comes from `url`, whose host the server must allow, or from `hf_repo`, a model repository (`owner/name`).
        `hf_token` opens a gated repository.
        """
        source = {"url": url or None, "hf_repo": hf_repo or None, "hf_token_secret": hf_token or None}
        body = asset_body(name, asset_type, data, description=description, is_public=is_public, **source)
        return Asset.model_validate((await self._call("POST", "/v1/assets", json=body))["asset"])

    async def asset(self, name_or_id: str) -> Asset:
        """Return an asset by id, name or `octoai:NAME`.

        >>> (await client.asset("octoai:default-sd15")).asset_type
        'checkpoint'
        """
        return Asset.model_validate((await self._call("GET", f"/v1/assets/{name_or_id}"))["asset"])

    async def wait_for_asset(self, asset: Asset, timeout_s: float = 120.0) -> Asset:
        """Wait until the asset is ready and return it. Raises TunesmithApiError if it is rejected or not ready in time."""
        deadline = time.monotonic() + timeout_s
        while (now := await self.asset(asset.id)).status != "ready":
            if now.status in {"rejected", "error", "deleted"}:
                raise TunesmithApiError(0, now.status, f"{now.name}: {now.status}: {now.status_details}")
            if time.monotonic() > deadline:
                raise TunesmithApiError(0, "timeout", f"{now.name}: still {now.status} after {timeout_s:.0f} s")
            await runtime.sleep(_POLL_S)
        return now

    async def iter_assets(self, **filters: Any) -> AsyncIterator[Asset]:
        """Yield the library, newest first, page by page as it is read. The filters are the API's.

        >>> [asset.name async for asset in client.iter_assets(asset_type="file")]
        ['rex']
        """
        async for item in self._pages("/v1/assets", filters):
            yield Asset.model_validate(item)

    async def assets(self, **filters: Any) -> list[Asset]:
        """Return the library, newest first. The filters are the API's, for example `asset_type="lora"`."""
        return [asset async for asset in self.iter_assets(**filters)]

    async def count_assets(self) -> int:
        """Return how many assets the account has. It is the cheapest request that needs a valid key."""
        page = await self._call("GET", "/v1/assets", params={"limit": 1})
        return page["total"]

    async def delete_asset(self, asset_id: str) -> None:
        """Delete an asset. Tunes that use it keep their own copy."""
        await self._delete(f"/v1/assets/{asset_id}")
