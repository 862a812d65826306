"""What the store's client signs, and what it does when the store does not answer, or this machine's disk fails."""

import errno
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from shared.blobs.store import Blobs
from shared.errors import UnavailableError


@pytest.fixture
async def blobs() -> AsyncIterator[Blobs]:
    """A client of a store that does not answer."""
    blobs = Blobs("http://127.0.0.1:1", "http://127.0.0.1:1", access_key="a", secret_key="b", bucket="tunes", region="us-east-1")
    yield blobs
    await blobs.close()


async def test_a_store_that_does_not_answer_is_unavailable(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    with pytest.raises(UnavailableError, match="the store does not answer") as refused:
        await blobs.put_file("key", tmp_path / "file")
    assert "127.0.0.1" not in refused.value.message, "accounts see it"


async def test_a_file_that_is_missing_is_no_outage(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await blobs.put_file("key", tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        await blobs.put_file("key", tmp_path)


async def test_a_full_disk_is_named_and_can_be_retried_elsewhere(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs._client, "get_object", is_full)

    with pytest.raises(UnavailableError, match=r"this machine's disk fails: .*No space left on device"):
        await blobs.get_file("key", tmp_path / "file")


async def test_a_url_is_signed_with_the_beginning_of_the_hour(blobs: Blobs) -> None:
    signed = httpx.URL(blobs.presign_get("assets/a/1.webp", 60)).params

    signed_at = datetime.strptime(signed["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert (signed_at.minute, signed_at.second) == (0, 0)
    assert timedelta() <= datetime.now(UTC) - signed_at < timedelta(hours=1, minutes=1)
    assert signed["X-Amz-Expires"] == str(3600 + 60)
    assert signed["response-content-type"] == "image/webp"
