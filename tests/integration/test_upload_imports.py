"""Imports: the server fetches what `url` and `hf_repo` name, from allowed hosts only, and every import ends."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from sqlalchemy import select, text

from services.upload.imports import importer
from services.upload.imports.importer import Importer
from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Asset, Context
from tests.support.file_host import UNSAID, FileHost, Reply, file_host
from tests.support.upload_world import UploadWorld, lora, png

SD15 = {"engine": "image/stable-diffusion-v1-5"}
TOKEN = "hf_QXJlWW91U3VyZVlvdVdhbnRUaGlz"
SHA = "0123456789abcdef0123456789abcdef01234567"


def answer(path: str, headers: dict[str, str]) -> Reply:
    """Answer as a hub and its mirror, with a path for each fault that either may have."""
    port = headers["host"].rpartition(":")[2]
    redirects = {
        "/redirect": f"http://mirror.test:{port}/style.safetensors",
        "/elsewhere": f"http://127.0.0.2:{port}/style.safetensors",
        "/metadata": "http://169.254.169.254/latest/meta-data/",
        "/circle": "/circle",
    }
    replies = {
        "/style.safetensors": Reply(lora(metadata={"trigger_word": "sks1"})),
        "/cat.png": Reply(png()),
        "/page": Reply(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}),
        "/large": Reply(b"x", length=10**12),
        "/endless": Reply(bytes(5000), length=UNSAID),
        "/stall": Reply(b"beginning", length=3000, stalls=True),
        "/gzip": Reply(b"x", headers={"Content-Encoding": "gzip"}),
        "/api/models/someone/styles": Reply(
            json.dumps({"sha": SHA, "siblings": [{"rfilename": "README.md"}, {"rfilename": "style.safetensors"}]}).encode()
        ),
        f"/someone/styles/resolve/{SHA}/style.safetensors": Reply(status=302, headers={"Location": redirects["/redirect"]}),
    }
    if path in redirects:
        return Reply(status=302, headers={"Location": redirects[path]})
    if path.startswith(("/api/models/someone/gated", "/someone/gated")) and headers.get("authorization") != f"Bearer {TOKEN}":
        return Reply(status=401)
    return replies.get(path.replace("gated", "styles"), Reply(status=404))


class Names:
    """A resolver whose answers change: each lookup of a name takes its next answer, and the last one stays."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> list[Any]:
        self.asked.append(host)
        answers = self.answers.get(host, ["127.0.0.1"])
        return [ip_address(answers.pop(0) if len(answers) > 1 else answers[0])]


@pytest.fixture
async def host() -> AsyncIterator[FileHost]:
    async with file_host(answer) as host:
        yield host


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def world(
    make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str, host: FileHost, names: Names
) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    settings = make_settings(
        UploadSettings,
        import_hosts=f"http://127.0.0.1:{host.port},http://hub.test:{host.port},http://mirror.test:{host.port}",
        import_private_networks="127.0.0.1/32",
        import_stall_s=0.5,
        max_file_bytes=4000,
        hf_endpoint=f"http://hub.test:{host.port}",
    )
    world = await UploadWorld.build(settings, database, blobs, names)
    yield world
    await world.close()
    await database.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "_PAUSES_S", (0.0, 0.0))


@asynccontextmanager
async def working(world: UploadWorld) -> AsyncIterator[None]:
    task = asyncio.create_task(world.importer.run())
    yield
    task.cancel()


async def end(world: UploadWorld, created: dict[str, Any]) -> Asset:
    """Wait until the bytes of an import are in staging, or until it has ended."""
    while True:
        row = await world.row(created["asset"]["id"])
        if row.status != "uploaded" or row.uploaded_at is not None:
            return row
        await asyncio.sleep(0.01)


async def test_a_lora_is_fetched_from_its_url_and_then_checked_as_any_upload(world: UploadWorld, host: FileHost) -> None:
    async with working(world):
        created = await world.create("style", "lora", data=SD15, url=host.url("/style.safetensors"))
        row = await end(world, created)

    assert created["transfer_api"] == {"type": "none"}
    assert (created["asset"]["status"], created["asset"]["url"]) == ("uploaded", host.url("/style.safetensors"))
    assert row.size_bytes == len(lora(metadata={"trigger_word": "sks1"}))
    assert [kind for kind, _ in await world.waiting_events()] == ["asset.created", "asset.uploaded"]
    assert (await world.client.post(f"/v1/assets/{row.id}/complete-upload", json={"token": ""})).json() == {"error": None}
    await world.intake.check(row.id)
    shown = await world.shown("style")
    assert (shown["status"], shown["data"]["trigger_words"]) == ("ready", ["sks1"])


async def test_an_image_is_fetched_from_its_url(world: UploadWorld, host: FileHost) -> None:
    async with working(world):
        row = await end(world, await world.create("cat", url=host.url("/cat.png")))
    await world.intake.check(row.id)

    assert (await world.shown("cat"))["status"] == "ready"


async def test_a_redirect_to_an_allowed_host_is_followed(world: UploadWorld, host: FileHost) -> None:
    async with working(world):
        row = await end(world, await world.create("style", "lora", data=SD15, url=host.url("/redirect")))

    assert (row.status, row.uploaded_at is not None) == ("uploaded", True)
    assert host.paths == ["/redirect", "/style.safetensors"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/elsewhere", "fetches nothing from http://127.0.0.2"),
        ("/metadata", "fetches nothing from http://169.254.169.254"),
        ("/circle", "more than 5 redirects"),
        ("/nothing", "127.0.0.1 answers 404"),
        ("/page", "a web page, not a file"),
        ("/large", "the file has 1000000000000 bytes or more; at most 4000"),
        ("/endless", "the file has 5000 bytes or more; at most 4000"),
        ("/stall", "the request to the host failed: ReadTimeout"),
        ("/gzip", "compressed"),
    ],
)
async def test_an_import_that_cannot_be_fetched_ends_in_error_with_the_reason(
    world: UploadWorld, host: FileHost, path: str, reason: str
) -> None:
    async with working(world):
        row = await end(world, await world.create("cat", url=host.url(path)))

    assert row.status == "error"
    assert reason in row.status_details
    assert (await world.waiting_events())[-1][0] == "asset.rejected"
    assert await world.blob_state(row.staging_key) == "orphaned"


async def test_an_import_that_exceeds_its_total_time_ends_in_error(
    world: UploadWorld, make_settings: Callable[..., UploadSettings], host: FileHost
) -> None:
    settings = world.settings.model_copy(update={"import_timeout_s": 0.2, "import_stall_s": 30.0})
    slow = await UploadWorld.build(settings, world.database, world.blobs)
    async with working(slow):
        row = await end(slow, await slow.create("cat", url=host.url("/stall")))
    await slow.close()

    assert (row.status, row.status_details) == ("error", "the import took longer than 0.2 s; upload the file instead")


async def test_an_imported_file_of_another_type_is_rejected_by_intake(world: UploadWorld, host: FileHost) -> None:
    async with working(world):
        row = await end(world, await world.create("style", "lora", data=SD15, url=host.url("/cat.png")))
    await world.intake.check(row.id)

    shown = await world.shown("style")
    assert (shown["status"], "not safetensors" in shown["status_details"]) == ("rejected", True)


async def test_an_allowed_host_with_an_internal_address_is_not_connected_to(
    world: UploadWorld, host: FileHost, names: Names
) -> None:
    names.answers["hub.test"] = ["127.0.0.2"]
    async with working(world):
        row = await end(world, await world.create("cat", url=host.url("/cat.png", "hub.test")))

    assert (row.status, host.paths) == ("error", [])
    assert "hub.test has no public address" in row.status_details


async def test_a_dns_change_after_the_check_cannot_reach_the_internal_network(
    world: UploadWorld, host: FileHost, names: Names
) -> None:
    """The name is resolved once, and the address that was checked is connected to."""
    names.answers["hub.test"] = ["127.0.0.1", "127.0.0.2"]
    async with working(world):
        row = await end(world, await world.create("cat", url=host.url("/cat.png", "hub.test")))
        asked, host.asked[:] = names.asked.copy(), []
        again = await end(world, await world.create("cat-2", url=host.url("/cat.png", "hub.test")))

    assert (row.status, asked) == ("uploaded", ["hub.test"])
    assert (again.status, host.paths) == ("error", [])


async def test_a_file_is_fetched_from_a_model_repository(world: UploadWorld, host: FileHost) -> None:
    async with working(world):
        created = await world.create("style", "lora", data=SD15, hf_repo="someone/styles")
        row = await end(world, created)

    assert (created["asset"]["hf_repo"], row.status, row.uploaded_at is not None) == ("someone/styles", "uploaded", True)
    assert host.paths == ["/api/models/someone/styles", f"/someone/styles/resolve/{SHA}/style.safetensors", "/style.safetensors"]


async def test_a_token_opens_a_gated_repository_and_is_stored_nowhere(
    world: UploadWorld, host: FileHost, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with working(world):
        closed = await end(world, await world.create("closed", "lora", data=SD15, hf_repo="someone/gated"))
        opened = await end(world, await world.create("open", "lora", data=SD15, hf_repo="someone/gated", hf_token_secret=TOKEN))

    assert (closed.status, "give a token as hf_token_secret" in closed.status_details) == ("error", True)
    assert (opened.status, opened.uploaded_at is not None) == ("uploaded", True)
    by_host = {headers["host"].partition(":")[0]: headers.get("authorization") for _, headers in host.asked}
    assert by_host == {"hub.test": f"Bearer {TOKEN}", "mirror.test": None}
    assert TOKEN not in caplog.text + "".join(capsys.readouterr())
    assert world.importer._mine == {}
    outbox = OUTBOXES[Context.UPLOAD]
    async with world.database.begin() as session:
        # The outbox stores events as bytes, which the text of a row shows in hexadecimal.
        rows = [str(bytes(body)) for body in await session.scalars(select(outbox.c.body))]
        tables = await session.scalars(text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"))
        for table in tables.all():
            rows += [str(row) for row in await session.execute(text(f"SELECT t::text FROM {table} t"))]
    assert "someone/gated" in "".join(rows)
    assert TOKEN not in "".join(rows)


async def _age(world: UploadWorld, seconds: float) -> None:
    async with world.database.begin() as session:
        await session.execute(text(f"UPDATE assets SET updated_at = now() - interval '{seconds} seconds'"))


async def test_another_process_takes_over_the_imports_of_a_dead_one(world: UploadWorld, host: FileHost) -> None:
    created = await world.create("style", "lora", data=SD15, url=host.url("/style.safetensors"))
    heir = Importer(world.database, world.blobs, world.settings, world.fetcher)
    await heir.heartbeat()
    assert heir._mine == {}
    await _age(world, world.settings.import_silence_s + 1)

    await heir.heartbeat()
    task = asyncio.create_task(heir.run())
    row = await end(world, created)
    task.cancel()

    assert row.uploaded_at is not None


async def test_a_process_that_renews_its_heartbeat_keeps_its_imports(world: UploadWorld, host: FileHost) -> None:
    await world.create("style", "lora", data=SD15, url=host.url("/style.safetensors"))
    heir = Importer(world.database, world.blobs, world.settings, world.fetcher)
    await _age(world, world.settings.import_silence_s + 1)

    await world.importer.heartbeat()
    await heir.heartbeat()

    assert heir._mine == {}


async def test_an_import_whose_token_was_lost_ends_in_error(world: UploadWorld) -> None:
    created = await world.create("style", "lora", data=SD15, hf_repo="someone/gated", hf_token_secret=TOKEN)
    heir = Importer(world.database, world.blobs, world.settings, world.fetcher)

    await heir.fetch(created["asset"]["id"])

    row = await world.row(created["asset"]["id"])
    assert (row.status, "hf_token_secret: the server restarted" in row.status_details) == ("error", True)


async def test_the_reconciler_and_intake_ignore_an_import_without_bytes(world: UploadWorld, host: FileHost) -> None:
    created = await world.create("style", "lora", data=SD15, url=host.url("/style.safetensors"))
    await _age(world, 3600)

    await world.reconciler.run_once()
    await world.intake.check(created["asset"]["id"])

    assert [kind for kind, _ in await world.waiting_events()] == ["asset.created"]
    assert (await world.row(created["asset"]["id"])).status == "uploaded"


async def test_an_import_that_is_deleted_meanwhile_leaves_no_bytes(world: UploadWorld, host: FileHost) -> None:
    created = await world.create("style", "lora", data=SD15, url=host.url("/style.safetensors"))
    row = await world.row(created["asset"]["id"])
    await world.client.delete(f"/v1/assets/{row.id}")

    world.settings.work_dir.mkdir(parents=True, exist_ok=True)
    late = world.settings.work_dir / "late"
    late.write_bytes(lora())

    await world.importer._complete(row, late, late.stat().st_size)

    assert await world.blob_state(row.staging_key) == "orphaned"
    assert [kind for kind, _ in await world.waiting_events()] == ["asset.created", "asset.deleted"]


async def test_an_import_over_the_limit_of_stored_bytes_ends_in_error(world: UploadWorld, host: FileHost) -> None:
    settings = world.settings.model_copy(update={"max_stored_bytes": 100})
    small = await UploadWorld.build(settings, world.database, world.blobs)
    async with working(small):
        row = await end(small, await small.create("style", "lora", data=SD15, url=host.url("/style.safetensors")))
    await small.close()

    assert row.status == "error"
    assert row.status_details.startswith("max_stored_bytes: 0 bytes are stored")
