"""The decisions of the asset library: what may be done with an asset, and how its bytes are moved."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.upload import repository, transitions
from services.upload.data import checked_data
from services.upload.schemas import AssetCreate, AssetOut, NoTransfer, PresignedTransfer, StsTransfer, Transfer
from services.upload.settings import UploadSettings
from services.upload.sources import AllowedHosts, check_repo
from shared.accounts import names, quotas
from shared.accounts.accounts import PLATFORM_ACCOUNT
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.tables import Asset, Context
from shared.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, UnavailableError
from shared.http.auth import Principal
from shared.ids import is_id

_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_READ = ("s3:GetObject",)


class Library:
    """The asset library. Every method works in the caller's transaction, and none commits it."""

    def __init__(self, blobs: Blobs, settings: UploadSettings) -> None:
        self._blobs = blobs
        self._settings = settings
        self._hosts = AllowedHosts(settings)

    async def create(self, session: AsyncSession, principal: Principal, request: AssetCreate, asset_id: str) -> Asset:
        """Create an asset that waits for its upload, or for the server to fetch the file.

        Raises InvalidError, NameTakenError, ForbiddenError for a public asset without the scope `admin`, and LimitError
        when the account has reached its limit of stored bytes.
        """
        most_bytes = self._settings.max_bytes(request.asset_type)
        if request.size_bytes is not None and request.size_bytes > most_bytes:
            msg = f"size_bytes: {request.size_bytes} is too large; a {request.asset_type} may have at most {most_bytes} bytes"
            raise InvalidError(msg, loc=("body", "size_bytes"))
        reserved_bytes = await quotas.admit_asset(
            session, principal.account_id, self._settings, declared_bytes=request.size_bytes, most_bytes=most_bytes
        )
        if request.is_public and not principal.is_admin:
            msg = "is_public: only a key with the scope 'admin' may make an asset public"
            raise ForbiddenError(msg)
        data = checked_data(request.asset_type, request.data)
        self._check_source(request)
        await names.reserve(session, principal.account_id, request.name, "asset", asset_id)
        # The key names the type, so that the edge can limit the size of the PUT.
        staging_key = f"staging/{request.asset_type}/{asset_id}"
        await blob_rows.stage(session, Context.UPLOAD, staging_key)
        asset = Asset(
            id=asset_id,
            account_id=principal.account_id,
            asset_type=request.asset_type,
            name=request.name,
            description=request.description,
            is_public=request.is_public,
            # The owner of an import has nothing left to do: a client that waits must see it as uploaded.
            status="uploaded" if request.is_import else "ready_to_upload",
            data=data,
            reserved_bytes=reserved_bytes,
            declared_bytes=request.size_bytes,
            staging_key=staging_key,
            url=request.url,
            hf_repo=request.hf_repo,
            needs_token=request.hf_token_secret is not None,
        )
        await transitions.create(session, asset)
        return asset

    def _check_source(self, request: AssetCreate) -> None:
        if request.url is not None and request.hf_repo is not None:
            msg = "url: hf_repo is given as well; give one of them"
            raise InvalidError(msg, loc=("body", "url"))
        if request.hf_token_secret is not None and request.hf_repo is None:
            msg = "hf_token_secret: hf_repo is missing; give both"
            raise InvalidError(msg, loc=("body", "hf_token_secret"))
        if request.url is not None:
            self._hosts.check(request.url)
        if request.hf_repo is not None:
            check_repo(request.hf_repo, request.asset_type)

    async def complete(self, session: AsyncSession, asset: Asset, size_bytes: int) -> None:
        """Note that the bytes are in staging. A second call changes nothing.

        Raises ConflictError when the asset was rejected or deleted, and LimitError when the account may not store as many bytes.
        """
        asset_id = asset.id
        if asset.status == "ready_to_upload":
            await quotas.admit_bytes(session, asset.account_id, self._settings, size_bytes, asset_id)
        if await transitions.complete(session, asset_id, size_bytes):
            return
        found = await repository.get(session, asset_id)
        if found is None or found.status not in {"uploaded", "ready"}:
            status = found.status if found else "unknown"
            msg = f"asset {asset_id} is {status} and takes no upload; create a new asset and upload to that one"
            raise ConflictError(msg)

    def check_size(self, asset: Asset, size_bytes: int | None) -> int:
        """Return the size of an upload in bytes. Raises InvalidError when it is missing, empty or too large."""
        limit = self._settings.max_bytes(asset.asset_type)
        declared = asset.declared_bytes
        if size_bytes is None:
            msg = f"nothing has been uploaded for asset {asset.id}; PUT the file to its put_url, then complete the upload"
        elif size_bytes == 0:
            msg = f"the upload of asset {asset.id} is empty; PUT the file to its put_url, then complete the upload"
        elif size_bytes > limit:
            msg = f"the upload has {size_bytes} bytes; a {asset.asset_type} may have at most {limit}"
        elif declared is not None and size_bytes > declared:
            msg = f"the upload has {size_bytes} bytes; its size_bytes was {declared}; create an asset with the true size"
        else:
            return size_bytes
        raise InvalidError(msg, loc=("path", "asset_id"))

    async def find(self, session: AsyncSession, account_id: UUID, key: str) -> Asset:
        """Find an asset by its id, its name in the account, or `octoai:NAME`.

        Raises NotFoundError, also for the asset of another account.
        """
        owner, colon, name = key.rpartition(":")
        found: Asset | None = None
        if not colon:
            found = await repository.own(session, account_id, key)
            if found is None and is_id("asset", key):
                found = await repository.public(session, asset_id=key)
        elif owner == PLATFORM_ACCOUNT:
            found = await repository.public(session, name=name)
        if found is None:
            raise _not_found(key)
        return found

    async def own_by_id(self, session: AsyncSession, account_id: UUID, asset_id: str) -> Asset:
        """Find an asset of the account by its id, and not by its name. Raises NotFoundError."""
        found = await repository.own(session, account_id, asset_id)
        if found is None or found.id != asset_id:
            raise _not_found(asset_id)
        return found

    async def delete(self, session: AsyncSession, account_id: UUID, asset_id: str) -> Asset:
        """Delete an asset and free its name; its bytes stay while a running tune needs them. Raises NotFoundError."""
        asset = await self.own_by_id(session, account_id, asset_id)
        deleted = await transitions.delete(session, asset.id)
        if deleted is None:
            raise _not_found(asset_id)
        return deleted

    async def expect_parts(self, session: AsyncSession, asset: Asset, wanted: str | None, *, is_own: bool = True) -> None:
        """Record that the asset may be uploaded in parts, before `transfer` gives out the credentials for it."""
        if is_own and wanted == "sts" and asset.status == "ready_to_upload" and asset.staging_key:
            await repository.expect_parts(session, asset.staging_key, self._settings.upload_credentials_s)

    async def transfer(self, asset: Asset, wanted: str | None = None, *, is_own: bool = True) -> Transfer:
        """Return how to upload or download the asset's bytes in its status.

        The account that sent an image gets it as it was sent, and every other account the clean copy.

        That is by URL, or with credentials when `wanted` is `sts` and the store grants them. Only the account that created the
        asset may upload its bytes. Bytes in staging get no download URL: they are unchecked, and would be served from the
        platform's origin.
        """
        if asset.status == "ready_to_upload" and asset.staging_key and is_own:
            granted = await self._grant(asset.staging_key, _WRITE) if wanted == "sts" else None
            return granted or PresignedTransfer(put_url=self._blobs.presign_put(asset.staging_key, self._settings.upload_url_s))
        if asset.status == "ready" and asset.blob_key:
            key = (asset.original_key if is_own else None) or asset.blob_key
            granted = await self._grant(key, _READ) if wanted == "sts" else None
            return granted or PresignedTransfer(get_url=self._blobs.presign_get(key, self._settings.download_url_s))
        if asset.status == "uploaded" and asset.uploaded_at is None:
            return NoTransfer()
        return PresignedTransfer()

    async def _grant(self, key: str, actions: tuple[str, ...]) -> StsTransfer | None:
        try:
            granted = await self._blobs.grant(key, actions=actions, lifetime_s=self._settings.upload_credentials_s)
        except UnavailableError:
            # The asset exists already. A presigned URL is made without the store, and works once the store is back.
            return None
        if granted is None:
            return None
        return StsTransfer(
            aws_region=self._settings.s3_region,
            aws_access_key_id=granted.access_key,
            aws_secret_access_key=granted.secret_key,
            aws_session_token=granted.session_token,
            s3_bucket=self._blobs.bucket,
            s3_key=key,
            s3_url=f"s3://{self._blobs.bucket}/{key}",
            s3_endpoint_url=self._settings.public_url,
        )

    def preview_url(self, asset: Asset) -> str | None:
        """Return a URL of an image's clean copy; None for an asset that has none."""
        if asset.asset_type != "file" or asset.status != "ready" or asset.blob_key is None:
            return None
        return self._blobs.presign_get(asset.blob_key, self._settings.download_url_s)

    def thumbnail_url(self, asset: Asset) -> str | None:
        """Return a URL of an image's thumbnail; None for an asset that has none, or none yet."""
        if asset.status != "ready" or asset.thumbnail_key is None:
            return None
        return self._blobs.presign_get(asset.thumbnail_key, self._settings.download_url_s)

    def shown_with_urls(self, asset: Asset, *, is_own: bool) -> AssetOut:
        """Return an asset with the URLs of what it looks like in its `data`."""
        answer = shown(asset, is_own=is_own)
        urls = {"preview_url": self.preview_url(asset), "thumbnail_url": self.thumbnail_url(asset)}
        return answer.model_copy(update={"data": answer.data | {name: url for name, url in urls.items() if url}})


def _not_found(key: str) -> NotFoundError:
    return NotFoundError(f"there is no asset {key!r} in this account")


def shown(asset: Asset, *, is_own: bool = True) -> AssetOut:
    """Return an asset as its own account, or as every other account sees it."""
    return AssetOut(
        id=asset.id,
        asset_type=asset.asset_type,
        name=asset.name,
        description=asset.description,
        size_bytes=asset.size_bytes if is_own else asset.copy_bytes or asset.size_bytes,
        status=asset.status,
        status_details=asset.status_details,
        created_at=asset.created_at,
        data=asset.data,
        tenant_uuid=asset.account_id,
        is_public=asset.is_public,
        hf_repo=asset.hf_repo,
        url=asset.url,
    )
