"""Restore works (promise 21): a dump and a copy of the bucket go into an empty stack as docs/reliability.md says."""

import asyncio
import os
import subprocess
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.local.parts.postgres import wheel_binaries
from shared.blobs.store import Blobs
from tests.support.stub_stack import StubStack
from tests.support.tunes import ended, start_tune
from tunesmith.client import Asset, Client

pytestmark = pytest.mark.timeout(900)


def test_every_finished_tune_can_be_downloaded_from_a_restored_stack(
    stack: StubStack, client: Client, image: Asset, tmp_path: Path
) -> None:
    for name in ("kept", "kept-too"):
        assert ended(client, start_tune(client, image, name)).status == "succeeded"
    finished = {tune.name: lora(client, tune.name) for tune in client.tunes() if tune.status == "succeeded"}
    assert {"kept", "kept-too"} <= finished.keys()
    # The database first: what its rows name stays in the bucket for the collector's grace.
    database("pg_dump", stack, "--format=custom", f"--file={tmp_path / 'dump'}")
    objects = asyncio.run(copied(stack, tmp_path / "bucket"))
    assert objects >= len(finished)

    other = StubStack(tmp_path / "other")
    try:
        other.start(only_external=True)
        database("pg_restore", other, "--no-owner", "--exit-on-error", str(tmp_path / "dump"))
        asyncio.run(put(other, tmp_path / "bucket"))
        other.end()
        other.start()

        with Client(other.state.url, (stack.paths.secrets / "api_key").read_text()) as old_key:
            assert {tune.name for tune in old_key.tunes()} == {tune.name for tune in client.tunes()}
            assert {name: lora(old_key, name) for name in finished} == finished
            assert ended(old_key, start_tune(old_key, old_key.asset(image.id), "goes-on")).status == "succeeded"
    finally:
        other.end()


def lora(client: Client, name: str) -> str:
    """Download a tune's LoRA and return its SHA-256."""
    asset = client._call("GET", f"/v1/assets/{name}")
    return sha256(httpx.get(asset["transfer_api"]["get_url"], timeout=60).raise_for_status().content).hexdigest()


def database(program: str, stack: StubStack, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on a stack's database."""
    url = urlsplit(stack.state.env["TUNESMITH_DATABASE_URL"])
    # Every user of the machine can see arguments, so the password is in the environment.
    login = {"PGHOST": url.hostname, "PGPORT": str(url.port), "PGUSER": url.username, "PGPASSWORD": url.password}
    env = os.environ | {name: value or "" for name, value in login.items()} | {"PGDATABASE": url.path.strip("/")}
    wanted = [f"--dbname={env['PGDATABASE']}"] if program == "pg_restore" else []
    subprocess.run([wheel_binaries() / program, *wanted, *arguments], check=True, timeout=120, env=env)


async def copied(stack: StubStack, folder: Path) -> int:
    """Copy every object of a stack's bucket into a folder, and return how many there were."""
    blobs = Blobs.from_settings(stack.settings())
    found = await blobs.list("")
    for listed in found:
        (folder / listed.key).parent.mkdir(parents=True, exist_ok=True)
        await blobs.get_file(listed.key, folder / listed.key)
    await blobs.close()
    return len(found)


async def put(stack: StubStack, folder: Path) -> None:
    """Copy a folder into a stack's bucket."""
    blobs = Blobs.from_settings(stack.settings())
    await blobs.ensure_bucket()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        await blobs.put_file(str(path.relative_to(folder)), path)
    await blobs.close()
