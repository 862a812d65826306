"""Objects in an S3 store.

The `minio` client blocks, so it runs in a bounded thread pool, with short timeouts: its defaults (300 s and five retries) would
hold a thread for half an hour. A second client, with the public address, only signs; its region is set, so that signing needs
no network call.
"""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from minio.commonconfig import REPLACE, CopySource
from minio.credentials.providers import AssumeRoleProvider
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.helpers import DictType

from shared.blobs import clients
from shared.blobs.objects import Grant, Listed, Stored, age_s, content_type, hash_file, listed
from shared.errors import DiskError, NotFoundError, TooLargeError, UnavailableError
from shared.failures import is_unavailable
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_PING_READ_S = 2.0
_PARTS_A_PAGE = 1000
_MISSING = {"NoSuchKey", "NoSuchBucket", "NoSuchObject"}


class Blobs:
    """An asynchronous client of the store. Every method that calls it raises UnavailableError when it does not answer."""

    def __init__(
        self,
        endpoint: str,
        public_url: str,
        *,
        access_key: str,
        secret_key: str,
        bucket: str,
        region: str,
        sts_endpoint: str = "",
        sts_role_arn: str = "",
        ca_file: Path | None = None,
    ) -> None:
        self.bucket = bucket
        self.endpoint = endpoint
        self._connections = clients.connections(ca_file=ca_file)
        self._client = clients.client(endpoint, access_key, secret_key, region, self._connections)
        self._sts: dict[str, Any] = {
            "sts_endpoint": sts_endpoint or endpoint,
            "access_key": access_key,
            "secret_key": secret_key,
            "region": region,
            "role_arn": sts_role_arn or None,
            "http_client": self._connections,
        }
        self._signer = clients.client(public_url, access_key, secret_key, region, self._connections)
        self._has_logged = False
        self._pool = ThreadPoolExecutor(clients.THREADS, thread_name_prefix="blobs")
        # Pings have a thread and a connection of their own: pings of a silent store must not occupy the threads of other calls.
        self._ping_connections = clients.connections(ca_file=ca_file, read_s=_PING_READ_S, retries=0, maxsize=1)
        self._ping_client = clients.client(endpoint, access_key, secret_key, region, self._ping_connections)
        self._ping_pool = ThreadPoolExecutor(1, thread_name_prefix="blobs-ping")

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> "Blobs":
        """Build the process's store client from its settings."""
        return cls(
            settings.s3_endpoint,
            settings.public_url,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            bucket=settings.s3_bucket,
            region=settings.s3_region,
            sts_endpoint=settings.s3_sts_endpoint,
            sts_role_arn=settings.s3_sts_role_arn,
            ca_file=settings.s3_ca_file,
        )

    async def close(self) -> None:
        """Wait for running calls, end the threads and close the connections."""
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._ping_pool.shutdown)
        self._connections.clear()
        self._ping_connections.clear()

    async def ensure_bucket(self) -> None:
        """Create the bucket unless it exists."""

        def make() -> None:
            try:
                self._client.make_bucket(self.bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

        await self._run(make)

    async def ping(self) -> None:
        """Raise UnavailableError unless the store answers and has the bucket."""
        if not await self._run(lambda: self._ping_client.bucket_exists(self.bucket), self._ping_pool):
            msg = f"the store has no bucket {self.bucket!r}"
            raise UnavailableError(msg)

    async def put_file(self, key: str, path: Path, content_type: str = "application/octet-stream") -> Stored:
        """Store a file under a key, in place of an object that has it. Raises OSError when the file cannot be read."""

        def put() -> Stored:
            stored = hash_file(path)
            self._client.fput_object(self.bucket, key, str(path), content_type)
            return stored

        return await self._run(put)

    async def put_bytes(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> Stored:
        """Store bytes under a key, in place of an object that has it."""

        def put() -> Stored:
            self._client.put_object(self.bucket, key, io.BytesIO(data), len(data), content_type)
            return Stored(hashlib.sha256(data).hexdigest(), len(data))

        return await self._run(put)

    async def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> Stored:
        """Download an object into a file, which appears whole or not at all.

        Raises NotFoundError, TooLargeError when it has more than `max_bytes`, and DiskError when the file cannot be written.
        """

        def get() -> Stored:
            draft = path.with_name(path.name + ".part")
            digest = hashlib.sha256()
            response = self._client.get_object(self.bucket, key)
            try:
                with draft.open("wb") as file:
                    # urllib3 would unpack an object that a client stored with a Content-Encoding, to any size.
                    for chunk in response.stream(1 << 20, decode_content=False):
                        if max_bytes is not None and file.tell() + len(chunk) > max_bytes:
                            raise _too_large(max_bytes)
                        digest.update(chunk)
                        file.write(chunk)
                    size = file.tell()
                draft.replace(path)
            finally:
                response.close()
                response.release_conn()
                draft.unlink(missing_ok=True)
            return Stored(digest.hexdigest(), size)

        return await self._run(get)

    async def get_bytes(self, key: str, *, max_bytes: int) -> bytes:
        """Return a small object. Raises NotFoundError, and TooLargeError when it has more than `max_bytes`."""

        def get() -> bytes:
            response = self._client.get_object(self.bucket, key)
            try:
                data = response.read(max_bytes + 1, decode_content=False)
            finally:
                response.close()
                response.release_conn()
            if len(data) > max_bytes:
                raise _too_large(max_bytes)
            return data

        return await self._run(get)

    async def get_head(self, key: str, size: int) -> bytes:
        """Return the first bytes of an object, at most `size`. Raises NotFoundError."""

        def get() -> bytes:
            response = self._client.get_object(self.bucket, key, length=size)
            try:
                return response.read(size, decode_content=False)
            finally:
                response.close()
                response.release_conn()

        return await self._run(get)

    async def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None when there is no object."""
        try:
            return (await self._run(lambda: self._client.stat_object(self.bucket, key))).size
        except NotFoundError:
            return None

    async def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, without the type and the metadata that it was stored with. Raises NotFoundError."""
        kept: DictType = {"Content-Type": content_type(target)}
        origin = CopySource(self.bucket, source)
        await self._run(lambda: self._client.copy_object(self.bucket, target, origin, metadata=kept, metadata_directive=REPLACE))

    async def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        await self._run(lambda: self._client.remove_object(self.bucket, key))

    async def pages(self, prefix: str, size: int) -> AsyncGenerator[list[Listed]]:
        """Yield the objects whose keys have this prefix, in the order of the keys, so many at a time; the last page has fewer."""
        found = self._client.list_objects(self.bucket, prefix, recursive=True)

        def listing() -> list[Listed]:
            return [listed(item) for item in islice(found, size)]

        while True:
            page = await self._run(listing)
            yield page
            if len(page) < size:
                return

    async def list(self, prefix: str) -> list[Listed]:
        """Return every object whose key has this prefix."""

        def listing() -> list[Listed]:
            found = self._client.list_objects(self.bucket, prefix, recursive=True)
            return [listed(item) for item in found]

        return await self._run(listing)

    async def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """Abort up to 1000 multipart uploads under a prefix that were begun longer ago than this; return how many.

        MinIO lists the uploads of a whole key only, and aborts by itself those that are a day old.
        """

        def abort() -> int:
            # The minio client has no public method for either.
            found = self._client._list_multipart_uploads(self.bucket, prefix=prefix)  # noqa: SLF001
            late = [upload for upload in found.uploads if age_s(upload.initiated_time) > older_than_s]
            aborted = 0
            for upload in late:
                try:
                    self._client._abort_multipart_upload(self.bucket, upload.object_name, upload.upload_id or "")  # noqa: SLF001
                    aborted += 1
                except S3Error as error:
                    # Such as one that was completed since it was listed.
                    log.warning("store.upload_not_aborted", key=upload.object_name, error=error.code)
            return aborted

        return await self._run(abort)

    async def uploads_in_parts(self, key: str) -> dict[str, int]:
        """Return the bytes of the key's uploads in parts, by upload id: of up to 1000 uploads."""

        def listing() -> dict[str, int]:
            # The minio client has no public method for either.
            found = self._client._list_multipart_uploads(self.bucket, prefix=key)  # noqa: SLF001
            ids = [upload.upload_id or "" for upload in found.uploads if upload.object_name == key]
            return {upload_id: self._size_of_parts(key, upload_id) for upload_id in ids}

        return await self._run(listing)

    def _size_of_parts(self, key: str, upload_id: str) -> int:
        total, marker = 0, None
        while True:
            # All pages: an attacker's first parts may be small.
            page = self._client._list_parts(  # noqa: SLF001 - as above
                self.bucket, key, upload_id, max_parts=_PARTS_A_PAGE, part_number_marker=marker
            )
            total += sum(part.size or 0 for part in page.parts)
            if not page.is_truncated:
                return total
            marker = str(page.next_part_number_marker)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort an upload in parts."""
        await self._run(lambda: self._client._abort_multipart_upload(self.bucket, key, upload_id))  # noqa: SLF001

    def presign_put(self, key: str, expires_s: int) -> str:
        """Return a URL, with the public address, that accepts a PUT of the object without any header until it expires."""
        return self._signer.presigned_put_object(self.bucket, key, timedelta(seconds=expires_s))

    def presign_get(self, key: str, valid_s: int = 3600, *, file_name: str | None = None) -> str:
        """Return a URL, with the public address, that returns the object for at least `valid_s`, and at most an hour longer.

        It is signed with the beginning of the hour, so that it stays the same for an hour and a browser's cache finds it. With
        `file_name` it has the object saved under that name, and ends after `valid_s`. The signature covers the type and the
        disposition of the response, so that nobody can have the object shown as a page.
        """
        kind = content_type(key)
        now = datetime.now(UTC)
        if file_name is None:
            lasts, signed = timedelta(hours=1, seconds=valid_s), now.replace(minute=0, second=0, microsecond=0)
        else:
            lasts, signed = timedelta(seconds=valid_s), now
        is_shown = kind.startswith("image/") and file_name is None
        shown = "inline" if is_shown else f'attachment; filename="{file_name or key.rpartition("/")[2]}"'
        forced: DictType = {"response-content-type": kind, "response-content-disposition": shown}
        return self._signer.presigned_get_object(self.bucket, key, lasts, response_headers=forced, request_date=signed)

    async def grant(self, key: str, *, actions: Sequence[str], lifetime_s: int) -> Grant | None:
        """Return credentials for these actions (such as `s3:PutObject`) on this object alone.

        None means that the store has no STS, or that the key may not use it. Stores accept a lifetime of at least an hour.
        """
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{self.bucket}/{key}"]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})

        def assume() -> Grant | None:
            provider = AssumeRoleProvider(
                **self._sts, policy=policy, duration_seconds=lifetime_s, role_session_name=key.rpartition("/")[2]
            )
            try:
                found = provider.retrieve()
            except ValueError as error:
                # minio raises ValueError when the store answers and refuses.
                log.warning("store.grant_refused", reason=str(error))
                return None
            return Grant(found.access_key, found.secret_key, found.session_token)

        return await self._run(assume)

    async def _run(self, call: Callable[[], T], pool: ThreadPoolExecutor | None = None) -> T:
        try:
            result = await asyncio.get_running_loop().run_in_executor(pool or self._pool, call)
        except S3Error as error:
            if error.code in _MISSING:
                # Without the key: these texts reach accounts.
                msg = "the store does not have the object any more; what it belonged to was deleted"
                raise NotFoundError(msg) from error
            self._note_failure(error)
            msg = f"the store refused the call: {error.code}"
            raise UnavailableError(msg) from error
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            # The caller's path is wrong, which no retry mends.
            raise
        except (urllib3.exceptions.HTTPError, ServerError, InvalidResponseError, OSError) as error:
            if isinstance(error, OSError) and not is_unavailable(error):
                # Without the path, which is nothing to an account.
                msg = f"this machine's disk fails: {error.strerror or type(error).__name__}"
                raise DiskError(msg, headers={"Retry-After": "2"}) from error
            self._note_failure(error)
            msg = "the store does not answer; try again"
            raise UnavailableError(msg, headers={"Retry-After": "2"}) from error
        self._has_logged = False
        return result

    def _note_failure(self, error: Exception) -> None:
        # One line an outage, not one a call. The errors that are raised do not say more, because accounts see them.
        if not self._has_logged:
            log.warning("store.unavailable", endpoint=self.endpoint, error=repr(error))
        self._has_logged = True


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the file is larger than {max_bytes} bytes; send a smaller one")
