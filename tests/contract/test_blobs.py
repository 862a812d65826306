"""What the platform needs of an S3 store, tested on the local stack's SeaweedFS and on MinIO."""

import base64
import gzip
import hashlib
import hmac
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from shared.blobs.store import Blobs, Grant, Stored
from shared.errors import NotFoundError, TooLargeError, UnavailableError
from tests.support.minio_server import BUILD_S, S3Store, minio_server

# The first test that needs MinIO waits for its build.
_MINIO = pytest.param("minio", marks=[pytest.mark.minio, pytest.mark.timeout(BUILD_S)])


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with minio_server(tmp_path_factory.mktemp("minio")) as store:
        yield store


@pytest.fixture(scope="session")
def seaweedfs(backends: dict[str, str]) -> S3Store:
    return S3Store(*(backends[f"TUNESMITH_S3_{name}"] for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")))


@pytest.fixture(params=["seaweedfs", _MINIO])
async def blobs(request: pytest.FixtureRequest) -> AsyncIterator[Blobs]:
    """Each store in turn, with an empty bucket."""
    store: S3Store = request.getfixturevalue(request.param)
    blobs = Blobs(
        store.endpoint,
        store.endpoint,
        access_key=store.access_key,
        secret_key=store.secret_key,
        bucket=f"test-{uuid4().hex[:12]}",
        region="us-east-1",
    )
    await blobs.ensure_bucket()
    yield blobs
    await blobs.close()


def _s3(store: str, grant: Grant) -> Any:
    """Return AWS's own client with the credentials of a grant."""
    return boto3.client(
        "s3",
        endpoint_url=store,
        region_name="us-east-1",
        aws_access_key_id=grant.access_key,
        aws_secret_access_key=grant.secret_key,
        aws_session_token=grant.session_token,
        config=Config(retries={"total_max_attempts": 1}),
    )


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return refused.value.response["Error"]["Code"]


async def test_a_grant_allows_writing_one_object_and_nothing_else(blobs: Blobs) -> None:
    granted = await blobs.grant("staging/lora/mine", actions=["s3:PutObject", "s3:AbortMultipartUpload"], lifetime_s=3600)
    assert granted is not None
    await blobs.put_bytes("staging/lora/other", b"secret")
    s3 = _s3(blobs.endpoint, granted)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)

    s3.put_object(Bucket=blobs.bucket, Key="staging/lora/mine", Body=b"whole")
    assert await blobs.get_bytes("staging/lora/mine", max_bytes=5) == b"whole"
    s3.upload_fileobj(io.BytesIO(bytes(6 << 20)), blobs.bucket, "staging/lora/mine", Config=parts)
    assert await blobs.size("staging/lora/mine") == 6 << 20

    wanted = {"Bucket": blobs.bucket, "Key": "staging/lora/other"}
    refused = {
        "neighbour": lambda: s3.put_object(**wanted, Body=b"x"),
        "same beginning": lambda: s3.put_object(Bucket=blobs.bucket, Key="staging/lora/mine2", Body=b"x"),
        "parts": lambda: s3.create_multipart_upload(**wanted),
        "reading": lambda: s3.get_object(**wanted),
        "copying": lambda: s3.copy_object(Bucket=blobs.bucket, Key="staging/lora/mine", CopySource=wanted),
        "deleting": lambda: s3.delete_object(**wanted),
        "listing": lambda: s3.list_objects_v2(Bucket=blobs.bucket),
    }
    assert {what: _refusal(call) for what, call in refused.items()} == dict.fromkeys(refused, "AccessDenied")


def _with_another_end(token: str, key: str, ends_at: float) -> str:
    """Return a session's token (a JWT) as the store would have signed it for a session with this end."""
    head, claims, _ = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"exp": int(ends_at)}
    body = f"{head}.{base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip('=')}"
    signature = hmac.digest(key.encode(), body.encode(), "sha256")
    return f"{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.mark.parametrize("blobs", ["seaweedfs"], indirect=True)
async def test_a_grant_opens_nothing_after_its_end(blobs: Blobs, backends_dir: Path) -> None:
    """The shortest grant of a store is an hour, so the test signs a token with an earlier end, with the store's own key."""
    key = (backends_dir / "secrets" / "s3_session_key").read_text()
    granted = await blobs.grant("staging/lora/mine", actions=["s3:PutObject"], lifetime_s=3600)
    assert granted is not None
    assert granted.session_token is not None

    def put(ends_in_s: float) -> None:
        token = _with_another_end(granted.session_token or "", key, time.time() + ends_in_s)
        s3 = _s3(blobs.endpoint, replace(granted, session_token=token))
        s3.put_object(Bucket=blobs.bucket, Key="staging/lora/mine", Body=b"x")

    put(ends_in_s=60)
    assert _refusal(lambda: put(ends_in_s=-1)) in {"ExpiredToken", "InvalidAccessKeyId", "AccessDenied"}


async def test_the_uploads_in_parts_of_a_key_are_listed_with_all_their_bytes(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.blobs.store._PARTS_A_PAGE", 2)
    granted = await blobs.grant("staging/lora/mine", actions=["s3:PutObject"], lifetime_s=3600)
    assert granted is not None
    wanted = {"Bucket": blobs.bucket, "Key": "staging/lora/mine"}
    s3 = _s3(blobs.endpoint, granted)
    first, second = [s3.create_multipart_upload(**wanted)["UploadId"] for _ in range(2)]
    for number in range(1, 6):
        s3.upload_part(**wanted, UploadId=first, PartNumber=number, Body=b"part")

    assert await blobs.uploads_in_parts("staging/lora/mine") == {first: 20, second: 0}
    assert await blobs.uploads_in_parts("staging/lora/min") == {}
    await blobs.abort_upload("staging/lora/mine", first)
    assert await blobs.uploads_in_parts("staging/lora/mine") == {second: 0}


async def test_the_parts_of_an_aborted_upload_are_deleted(blobs: Blobs) -> None:
    granted = await blobs.grant("staging/lora/mine", actions=["s3:PutObject"], lifetime_s=3600)
    assert granted is not None
    wanted = {"Bucket": blobs.bucket, "Key": "staging/lora/mine"}
    s3 = _s3(blobs.endpoint, granted)
    upload_id = s3.create_multipart_upload(**wanted)["UploadId"]
    s3.upload_part(**wanted, UploadId=upload_id, PartNumber=1, Body=b"part")

    assert await blobs.abort_uploads("staging/lora/mine", older_than_s=3600) == 0
    assert await blobs.abort_uploads("staging/lora/mine", older_than_s=-60) == 1

    assert _refusal(lambda: s3.upload_part(**wanted, UploadId=upload_id, PartNumber=2, Body=b"part")) == "NoSuchUpload"


async def test_bytes_are_read_as_they_were_written(blobs: Blobs) -> None:
    stored = await blobs.put_bytes("assets/a", b"image", "image/png")

    assert stored == Stored(hashlib.sha256(b"image").hexdigest(), 5)
    assert await blobs.get_bytes("assets/a", max_bytes=5) == b"image"
    assert await blobs.size("assets/a") == 5


async def test_files_are_read_as_they_were_written(blobs: Blobs, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 50_000)

    put = await blobs.put_file("assets/large", source)
    got = await blobs.get_file("assets/large", target)

    assert put == got
    assert target.read_bytes() == source.read_bytes()


async def test_a_second_put_replaces_the_first(blobs: Blobs) -> None:
    await blobs.put_bytes("k", b"one")
    await blobs.put_bytes("k", b"two")

    assert await blobs.get_bytes("k", max_bytes=10) == b"two"


async def test_a_missing_object_is_not_found(blobs: Blobs, tmp_path: Path) -> None:
    assert await blobs.size("nothing") is None
    with pytest.raises(NotFoundError):
        await blobs.get_bytes("nothing", max_bytes=1)
    with pytest.raises(NotFoundError):
        await blobs.get_file("nothing", tmp_path / "x")
    with pytest.raises(NotFoundError):
        await blobs.copy("nothing", "target")
    assert not (tmp_path / "x").exists()


async def test_an_object_larger_than_expected_is_not_read_whole(blobs: Blobs) -> None:
    await blobs.put_bytes("k", b"x" * 11)

    with pytest.raises(TooLargeError):
        await blobs.get_bytes("k", max_bytes=10)


async def test_a_copy_outlives_its_source(blobs: Blobs) -> None:
    await blobs.put_bytes("source", b"lora")
    await blobs.copy("source", "target")
    await blobs.delete("source")

    assert await blobs.get_bytes("target", max_bytes=10) == b"lora"


async def test_deleting_twice_succeeds(blobs: Blobs) -> None:
    await blobs.put_bytes("k", b"x")
    await blobs.delete("k")
    await blobs.delete("k")

    assert await blobs.size("k") is None


async def test_a_listing_has_the_objects_below_the_prefix(blobs: Blobs) -> None:
    for key in ("tunes/a/1", "tunes/a/2/x", "assets/b"):
        await blobs.put_bytes(key, b"x")

    assert sorted(item.key for item in await blobs.list("tunes/")) == ["tunes/a/1", "tunes/a/2/x"]


async def test_making_the_bucket_twice_succeeds(blobs: Blobs) -> None:
    await blobs.ensure_bucket()
    await blobs.ping()


async def test_a_presigned_url_opens_its_own_object_alone(blobs: Blobs) -> None:
    async with httpx.AsyncClient() as client:
        # The SDKs send neither Authorization nor Content-Type.
        put = await client.put(blobs.presign_put("staging/file/a", 60), content=b"photo")
        got = await client.get(blobs.presign_get("staging/file/a", 60))
        elsewhere = await client.put(blobs.presign_put("staging/file/a", 60).replace("file/a", "file/b"), content=b"x")
        unsigned = await client.get(blobs.presign_get("staging/file/a", 60).partition("?")[0])

    assert (put.status_code, got.status_code, got.content) == (200, 200, b"photo")
    assert elsewhere.status_code == unsigned.status_code == 403


async def test_a_store_that_does_not_answer_is_unavailable() -> None:
    blobs = Blobs("http://127.0.0.1:1", "http://127.0.0.1:1", access_key="a", secret_key="b", bucket="tunes", region="us-east-1")
    with pytest.raises(UnavailableError):
        await blobs.get_bytes("k", max_bytes=1)
    await blobs.close()


async def test_signing_needs_no_store() -> None:
    blobs = Blobs(
        "http://127.0.0.1:1",
        "https://tunes.example",
        access_key="a",
        secret_key="b",
        bucket="tunes",
        region="us-east-1",
    )
    assert blobs.presign_put("staging/file/a", 60).startswith("https://tunes.example/tunes/staging/file/a?")
    await blobs.close()


async def test_a_copy_forgets_the_type_and_the_encoding_that_a_client_stored(blobs: Blobs) -> None:
    async with httpx.AsyncClient() as client:
        told = {"Content-Type": "text/html", "Content-Encoding": "gzip", "Content-Disposition": "inline"}
        put = await client.put(blobs.presign_put("staging/lora/a", 60), content=b"<script>", headers=told)
        assert put.status_code == httpx.codes.OK
        await blobs.copy("staging/lora/a", "assets/a/lora.safetensors")
        # Not by a URL of ours, which forces the type.
        signed = blobs._signer.presigned_get_object(blobs.bucket, "assets/a/lora.safetensors")
        got = await client.get(signed)

    assert got.content == b"<script>"
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Encoding" not in got.headers
    assert got.headers.get("Content-Disposition", "attachment") != "inline"


@pytest.mark.parametrize(
    ("key", "kind", "shown"),
    [
        ("assets/a/1.png", "image/png", "inline"),
        ("assets/a/1.jpg", "image/jpeg", "inline"),
        ("assets/a/lora.safetensors", "application/octet-stream", 'attachment; filename="lora.safetensors"'),
        ("assets/a/page.html", "application/octet-stream", 'attachment; filename="page.html"'),
    ],
)
async def test_a_signed_url_forces_the_type_of_its_answer(blobs: Blobs, key: str, kind: str, shown: str) -> None:
    await blobs.put_bytes(key, b"<script>", "text/html")
    url = blobs.presign_get(key, 60)
    async with httpx.AsyncClient() as client:
        got = await client.get(url)
        changed = await client.get(url.replace(kind.replace("/", "%2F"), "text%2Fhtml"))
        added = await client.get(f"{url}&Response-Content-Type=text/html")

    assert (got.headers["Content-Type"], got.headers["Content-Disposition"]) == (kind, shown)
    assert {changed.status_code, added.status_code} == {403}


async def test_an_object_that_a_client_stored_compressed_is_not_unpacked(blobs: Blobs, tmp_path: Path) -> None:
    packed = gzip.compress(bytes(10**6))
    async with httpx.AsyncClient() as client:
        put = await client.put(blobs.presign_put("staging/file/a", 60), content=packed, headers={"Content-Encoding": "gzip"})
        assert put.status_code == httpx.codes.OK

    stored = await blobs.get_file("staging/file/a", tmp_path / "file")

    assert (stored.size_bytes, (tmp_path / "file").read_bytes()) == (len(packed), packed)
    assert await blobs.get_bytes("staging/file/a", max_bytes=len(packed)) == packed


async def test_a_file_larger_than_is_allowed_is_not_kept(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put_bytes("staging/file/a", bytes(1001))

    with pytest.raises(TooLargeError, match="larger than 1000 bytes"):
        await blobs.get_file("staging/file/a", tmp_path / "file", max_bytes=1000)

    assert list(tmp_path.iterdir()) == []
