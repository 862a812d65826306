"""What may be done with an asset, and what follows from it."""

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
    """The asset library's decisions. Everything happens in the caller's transaction."""

    def __init__(self, blobs: Blobs, settings: UploadSettings) -> None:
        self._blobs = blobs
        self._settings = settings
        self._hosts = AllowedHosts(settings)

    async def create(self, session: AsyncSession, principal: Principal, request: AssetCreate, asset_id: str) -> Asset:
        """Create an asset that waits for its bytes, or for the server to fetch them.

        Raises NameTakenError, ForbiddenError for a public one without the scope, InvalidError, LimitError for an account
        that stores all it may.
        """
        await quotas.admit_bytes(session, principal.account_id, self._settings, 0)
        if request.is_public and not principal.is_admin:
            msg = "is_public: only a key with the scope 'admin' may make an asset public"
            raise ForbiddenError(msg)
        data = checked_data(request.asset_type, request.data)
        self._check_source(request)
        await names.reserve(session, principal.account_id, request.name, "asset", asset_id)
        # The type stands in the key, so that the edge knows how much a PUT may send.
        staging_key = f"staging/{request.asset_type}/{asset_id}"
        await blob_rows.stage(session, Context.UPLOAD, staging_key)
        asset = Asset(
            id=asset_id,
            account_id=principal.account_id,
            asset_type=request.asset_type,
            name=request.name,
            description=request.description,
            is_public=request.is_public,
            # An import needs nothing more of its owner: for clients that wait, it has been uploaded.
            status="uploaded" if request.is_import else "ready_to_upload",
            data=data,
            staging_key=staging_key,
            url=request.url,
            hf_repo=request.hf_repo,
            needs_token=request.hf_token_secret is not None,
        )
        await transitions.create(session, asset)
        return asset

    def _check_source(self, request: AssetCreate) -> None:
        if request.url is not None and request.hf_repo is not None:
            msg = "url and hf_repo: give one of them"
            raise InvalidError(msg, loc=("body", "url"))
        if request.hf_token_secret is not None and request.hf_repo is None:
            msg = "hf_token_secret: goes with hf_repo"
            raise InvalidError(msg, loc=("body", "hf_token_secret"))
        if request.url is not None:
            self._hosts.check(request.url)
        if request.hf_repo is not None:
            check_repo(request.hf_repo, request.asset_type)

    async def complete(self, session: AsyncSession, asset: Asset, size_bytes: int) -> None:
        """Take note that the bytes are in staging; doing so again is fine.

        Raises ConflictError after a refusal, LimitError when the account may not store as many bytes.
        """
        asset_id = asset.id
        if asset.status == "ready_to_upload":
            await quotas.admit_bytes(session, asset.account_id, self._settings, size_bytes, asset_id)
        if await transitions.complete(session, asset_id, size_bytes):
            return
        found = await repository.get(session, asset_id)
        if found is None or found.status not in {"uploaded", "ready"}:
            status = found.status if found else "unknown"
            msg = f"asset {asset_id} is {status}: create a new asset and upload to that one"
            raise ConflictError(msg)

    def check_size(self, asset: Asset, size_bytes: int | None) -> int:
        """Return the size of what was uploaded, in bytes. Raises InvalidError when it is missing, empty or too large."""
        limit = self._settings.max_bytes(asset.asset_type)
        if size_bytes is None:
            msg = f"nothing has been uploaded for asset {asset.id}: PUT the file to its put_url, then complete the upload"
        elif size_bytes == 0:
            msg = f"what was uploaded for asset {asset.id} is empty"
        elif size_bytes > limit:
            msg = f"the upload has {size_bytes} bytes; a {asset.asset_type} may have at most {limit}"
        else:
            return size_bytes
        raise InvalidError(msg, loc=("path", "asset_id"))

    async def find(self, session: AsyncSession, account_id: UUID, key: str) -> Asset:
        """Find an asset by id, by own name, or by `octoai:NAME`. Raises NotFoundError, also for what is another's."""
        owner, colon, name = key.rpartition(":")
        found: Asset | None = None
        if not colon:
            found = await repository.own(session, account_id, key)
            if found is None and is_id("asset", key):
                found = await repository.public(session, asset_id=key)
        elif owner == PLATFORM_ACCOUNT:
            found = await repository.public(session, name=name)
        if found is None:
            msg = f"there is no asset {key!r} in this account"
            raise NotFoundError(msg)
        return found

    async def own_by_id(self, session: AsyncSession, account_id: UUID, asset_id: str) -> Asset:
        """Find an account's own asset by its id alone. Raises NotFoundError."""
        found = await repository.own(session, account_id, asset_id)
        if found is None or found.id != asset_id:
            msg = f"there is no asset {asset_id!r} in this account"
            raise NotFoundError(msg)
        return found

    async def delete(self, session: AsyncSession, account_id: UUID, asset_id: str) -> Asset:
        """Delete an asset: its name is free at once, its bytes go when no running tune needs them. Raises NotFoundError."""
        asset = await self.own_by_id(session, account_id, asset_id)
        deleted = await transitions.delete(session, asset.id)
        if deleted is None:
            msg = f"there is no asset {asset_id!r} in this account"
            raise NotFoundError(msg)
        return deleted

    async def transfer(self, asset: Asset, wanted: str | None = None) -> Transfer:
        """Return how the asset's bytes are moved in its state: by URLs, or by credentials for `sts` where there are such.

        What lies in staging gets no download URL: nobody has looked at it yet, and it would be served from our origin.
        """
        if asset.status == "ready_to_upload" and asset.staging_key:
            granted = await self._grant(asset.staging_key, _WRITE) if wanted == "sts" else None
            return granted or PresignedTransfer(put_url=self._blobs.presign_put(asset.staging_key, self._settings.upload_url_s))
        if asset.status == "ready" and asset.blob_key:
            granted = await self._grant(asset.blob_key, _READ) if wanted == "sts" else None
            return granted or PresignedTransfer(get_url=self._blobs.presign_get(asset.blob_key, self._settings.download_url_s))
        if asset.status == "uploaded" and asset.uploaded_at is None:
            return NoTransfer()
        return PresignedTransfer()

    async def _grant(self, key: str, actions: tuple[str, ...]) -> StsTransfer | None:
        try:
            granted = await self._blobs.grant(key, actions=actions, lifetime_s=self._settings.upload_credentials_s)
        except UnavailableError:
            # The asset is there by now, and a URL, which needs no store to be made, serves as well once the store is back.
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
        """Return a link to a picture's clean copy; None for what has none."""
        if asset.asset_type != "file" or asset.status != "ready" or asset.blob_key is None:
            return None
        return self._blobs.presign_get(asset.blob_key, self._settings.download_url_s)


def shown(asset: Asset, *, preview_url: str | None = None) -> AssetOut:
    """Translate a row for clients."""
    return AssetOut(
        id=asset.id,
        asset_type=asset.asset_type,
        name=asset.name,
        description=asset.description,
        size_bytes=asset.size_bytes,
        status=asset.status,
        status_details=asset.status_details,
        created_at=asset.created_at,
        data=asset.data | {"preview_url": preview_url} if preview_url else asset.data,
        tenant_uuid=asset.account_id,
        is_public=asset.is_public,
        hf_repo=asset.hf_repo,
        url=asset.url,
    )
