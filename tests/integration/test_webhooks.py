"""Webhooks: signed calls for a tune's events, retried until the receiver accepts them, and never to an internal address."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from services.scheduler.settings import SchedulerSettings
from services.scheduler.webhooks.service import Webhooks
from shared.blobs.store import Blobs
from shared.database.tables import WebhookDelivery
from shared.tunes import leases
from shared.tunes.leases import Lease
from tests.support.scheduler_world import SchedulerWorld, make_world
from tests.support.trainer_world import claim_next
from tests.support.waiting import eventually


@dataclass
class Receiver:
    """An endpoint that answers with the given statuses, repeats the last of them, and keeps the calls."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[1:]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head if line)}
        self.calls.append((headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(f"HTTP/1.1 {status} X\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.calls]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield receiver


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    # No pause between attempts: a delivery that failed is due again at once.
    settings = {"webhook_allow_private": True, "webhook_retry_s": 1e-9, "webhook_attempts": 3}
    async with make_world(make_settings, database_url, blobs, **settings) as world:
        yield world


async def deliver(world: SchedulerWorld, **settings: object) -> None:
    """Call webhooks until nothing is due."""
    webhooks = Webhooks(world.database, world.notifications, world.settings.model_copy(update=settings))
    async with webhooks._http:
        while delivery := await webhooks._claim():
            await webhooks._deliver(delivery)


async def rows(world: SchedulerWorld) -> list[WebhookDelivery]:
    async with world.database.begin() as session:
        return list(await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.sequence)))


async def cancelled(world: SchedulerWorld, receiver: Receiver, **top: Any) -> str:
    """Create a tune with a webhook, claim it and cancel it."""
    tune_id = (await world.create(top={"webhook": receiver.url, **top}))["id"]
    await claim_next(world.database)
    await world.client.post(f"/v1/tune/{tune_id}/cancel")
    async with world.database.begin() as session:
        await leases.cancelled(session, Lease(tune_id, 1))
    return tune_id


async def test_a_webhook_receives_events_in_order_with_a_valid_signature(world: SchedulerWorld, receiver: Receiver) -> None:
    tune_id = await cancelled(world, receiver)
    secret = (await world.client.get("/v1/tunes/webhook-secret")).json()["secret"]

    await deliver(world)

    assert receiver.types == ["tune.started", "tune.cancelled"]
    for headers, body in receiver.calls:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        assert headers["content-type"] == "application/json"
    last = json.loads(receiver.calls[-1][1])["data"]
    assert (last["tune_id"], last["name"], last["status"], last["sequence"]) == (tune_id, "sks1-dog", "cancelled", 4)
    assert {row.state for row in await rows(world)} == {"delivered"}


async def test_for_a_day_after_a_rotation_the_old_secret_signs_as_well(world: SchedulerWorld, receiver: Receiver) -> None:
    old = (await world.client.get("/v1/tunes/webhook-secret")).json()["secret"]
    new = (await world.client.post("/v1/tunes/webhook-secret/rotate")).json()["secret"]
    assert old != new == (await world.client.get("/v1/tunes/webhook-secret")).json()["secret"]
    assert (await world.stranger.get("/v1/tunes/webhook-secret")).json()["secret"] not in {old, new}

    await cancelled(world, receiver, webhook_events_filter=["completed"])
    await deliver(world)

    assert receiver.types == ["tune.cancelled"]
    assert len(receiver.calls[0][0]["webhook-signature"].split(" ")) == 2


async def test_a_failed_call_is_retried_with_the_same_id_and_body(world: SchedulerWorld, receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 200]
    await cancelled(world, receiver, webhook_events_filter=["completed"])

    await deliver(world)

    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 1
    assert len({body for _, body in receiver.calls}) == 1
    [row] = await rows(world)
    assert (row.state, row.attempt, row.last_status) == ("delivered", 3, 200)


async def test_a_redirect_is_a_failure_and_the_last_attempt_ends_the_delivery(world: SchedulerWorld, receiver: Receiver) -> None:
    receiver.statuses = [302]
    await cancelled(world, receiver, webhook_events_filter=["completed"])

    await deliver(world)

    [row] = await rows(world)
    assert (row.state, row.attempt, row.last_error) == ("failed", 3, "the receiver answered 302; redirects are not followed")
    assert len(receiver.calls) == 3


async def test_a_410_ends_the_delivery_at_once(world: SchedulerWorld, receiver: Receiver) -> None:
    receiver.statuses = [410]
    await cancelled(world, receiver, webhook_events_filter=["completed"])

    await deliver(world)

    assert [(row.state, row.attempt) for row in await rows(world)] == [("failed", 1)]


async def test_an_account_lists_the_outcomes_of_its_calls_in_pages(world: SchedulerWorld, receiver: Receiver) -> None:
    receiver.statuses = [410, 500, 200]
    tune_id = await cancelled(world, receiver)

    async def listed(**query: int) -> dict[str, Any]:
        return (await world.client.get(f"/v1/tune/{tune_id}/webhook_deliveries", params=query)).json()

    before = await listed()
    await deliver(world)
    after = await listed()

    assert [(row["type"], row["state"], row["attempts"]) for row in before["data"]] == [
        ("tune.started", "pending", 0),
        ("tune.cancelled", "pending", 0),
    ]
    assert all(row["next_attempt_at"] and row["last_status"] is None for row in before["data"])
    shown = [(row["state"], row["attempts"], row["last_status"], row["last_error"]) for row in after["data"]]
    assert shown == [("failed", 1, 410, "the receiver answered 410"), ("delivered", 2, 200, None)]
    assert all(row["ended_at"] and row["next_attempt_at"] is None for row in after["data"])
    assert {row["id"] for row in after["data"]} == {headers["webhook-id"] for headers, _ in receiver.calls}
    first = await listed(limit=1)
    assert (first["data"], first["has_more"]) == (after["data"][:1], True)
    assert await listed(after=first["data"][0]["sequence"]) == {"data": after["data"][1:], "has_more": False}
    assert (await world.stranger.get(f"/v1/tune/{tune_id}/webhook_deliveries")).status_code == 404


async def test_between_attempts_a_delivery_shows_its_last_error_and_next_attempt(
    world: SchedulerWorld, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    tune_id = await cancelled(world, receiver, webhook_events_filter=["completed"])

    await deliver(world, webhook_retry_s=60.0)

    [row] = (await world.client.get(f"/v1/tune/{tune_id}/webhook_deliveries")).json()["data"]
    assert (row["state"], row["attempts"], row["last_status"], row["last_error"]) == (
        "pending",
        1,
        500,
        "the receiver answered 500",
    )
    assert row["next_attempt_at"] > row["created_at"]
    assert row["ended_at"] is None


async def test_a_host_name_with_an_internal_address_is_not_called(world: SchedulerWorld, receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost")
    await cancelled(world, receiver, webhook=url, webhook_events_filter=["completed"])

    await deliver(world, webhook_allow_private=False)

    [row] = await rows(world)
    assert (row.state, row.last_status) == ("failed", None)
    assert "localhost has no public address" in (row.last_error or "")
    assert receiver.calls == []


async def test_progress_is_limited_in_rate_and_newer_progress_replaces_what_is_pending(
    world: SchedulerWorld, receiver: Receiver
) -> None:
    tune_id = (await world.create(top={"webhook": receiver.url, "webhook_events_filter": ["progress"]}))["id"]
    await claim_next(world.database)

    async def progress(step: int) -> None:
        async with world.database.begin() as session:
            await leases.progress(session, Lease(tune_id, 1), step=step, loss=0.5, steps_per_second=1.0, steps_run=1)

    async def age() -> None:
        async with world.database.begin() as session:
            past = func.now() - text("interval '1 second'")
            await session.execute(update(WebhookDelivery).values(created_at=past))

    await progress(1)
    await progress(2)
    assert [json.loads(row.body)["data"]["step"] for row in await rows(world)] == [1]
    await age()
    await progress(3)
    assert [json.loads(row.body)["data"]["step"] for row in await rows(world)] == [3]
    await deliver(world)
    await age()
    await progress(4)
    assert [(row.state, json.loads(row.body)["data"]["step"]) for row in await rows(world)] == [("delivered", 3), ("pending", 4)]


async def test_two_senders_make_each_call_once_and_those_of_a_tune_in_order(world: SchedulerWorld, receiver: Receiver) -> None:
    for number in range(3):
        await world.create(f"dog-{number}", top={"webhook": receiver.url})
        held = await claim_next(world.database)
        async with world.database.begin() as session:
            await leases.fail(session, held.lease, code="bad_image", message="not an image")
    senders = [asyncio.create_task(Webhooks(world.database, world.notifications, world.settings).run()) for _ in range(2)]

    async def all_delivered() -> bool | None:
        return all(row.state == "delivered" for row in await rows(world)) or None

    await eventually(all_delivered, 60)
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)

    ids = [headers["webhook-id"] for headers, _ in receiver.calls]
    assert len(ids) == len(set(ids)) == 6
    received = [(body["data"]["name"], body["type"]) for body in (json.loads(got) for _, got in receiver.calls)]
    for number in range(3):
        assert [kind for name, kind in received if name == f"dog-{number}"] == ["tune.started", "tune.failed"]
