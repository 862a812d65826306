"""The webhooks of tunes: each event is delivered at least once, signed, and retried with growing pauses."""

import asyncio
import json
import random
import time
from uuid import UUID

import httpx
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.settings import SchedulerSettings
from services.scheduler.webhooks import repository, signing
from services.scheduler.webhooks.repository import ClaimedDelivery
from services.scheduler.webhooks.schemas import Delivery, DeliveryList, Secret
from shared.database import retention
from shared.database.notifications import Notifications
from shared.database.rounds import BadRowError, PassedOver
from shared.database.sessions import Database
from shared.database.tables import WebhookDelivery
from shared.errors import InvalidError
from shared.http import outbound
from shared.shares import Shares
from shared.telemetry import get_logger

log = get_logger(__name__)

_CALLS = Counter("tunesmith_webhook_calls", "Calls of webhooks by their outcome.", ["outcome"])
_POLL_S = 1.0
_RETRY_AFTER_DATABASE_S = 1.0
_FACTOR = 4.0
_LONGEST_PAUSE_S = 6 * 3600.0
_CLAIM_SLACK_S = 30.0
_GONE = 410
_USER_AGENT = "tunesmith-webhook/1"


async def current_secret(session: AsyncSession, account_id: UUID) -> Secret:
    """Return the account's secret, which is made on the first call."""
    return Secret(secret=await repository.secret_of(session, account_id, first=signing.new_secret()))


async def rotate(session: AsyncSession, account_id: UUID) -> Secret:
    """Replace the account's secret and return the new one; the old one signs as well for a day."""
    await current_secret(session, account_id)
    new = signing.new_secret()
    await repository.replace_secret(session, account_id, new, overlap=signing.OVERLAP)
    return Secret(secret=new)


async def page(session: AsyncSession, tune_id: str, *, after: int, limit: int) -> DeliveryList:
    """Return the deliveries of the tune's events after a sequence number, oldest first."""
    found = await repository.deliveries_of(session, tune_id, after=after, limit=limit + 1)
    return DeliveryList(data=[_show(row) for row in found[:limit]], has_more=len(found) > limit)


class Webhooks:
    """Delivers what `shared/tunes/webhooks.py` wrote. Replicas share the work: each delivery is claimed in the database.

    If a process dies during a call, its claim expires and another process calls again. Receivers recognize the repeat by its
    `webhook-id`.
    """

    def __init__(self, database: Database, notifications: Notifications, settings: SchedulerSettings) -> None:
        self._database = database
        self._notifications = notifications
        self._settings = settings
        self._http = outbound.client(
            allow_private=settings.webhook_allow_private,
            timeout_s=settings.webhook_timeout_s,
            connections=settings.webhook_concurrency,
        )
        self._passed_over = PassedOver("webhooks.claim", database)
        self._room = asyncio.Semaphore(settings.webhook_concurrency)
        self._shares = Shares(settings.webhook_concurrency)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with self._http, asyncio.TaskGroup() as calls:
            with self._notifications.about(None) as news:
                while True:
                    await self._room.acquire()
                    news.clear()
                    self._ended.clear()
                    delivery = await self._claim()
                    if delivery is None:
                        self._room.release()
                        await self._notifications.wait(news, self._ended, _POLL_S)
                        continue
                    self._shares.take(delivery.account_id)
                    calls.create_task(self._deliver_in_room(delivery))

    async def forget(self) -> None:
        """Delete the deliveries that ended longer ago than `webhook_kept_s`."""
        await retention.forget(self._database, "webhooks", repository.expired(self._settings.webhook_kept_s))

    async def _claim(self) -> ClaimedDelivery | None:
        claim_s = self._settings.webhook_timeout_s + _CLAIM_SLACK_S
        while True:
            try:
                # First one of an account that has no call here, so that slow receivers of one account delay only its own.
                for passed_over in dict.fromkeys((tuple(self._shares.holders()), tuple(self._shares.full()))):
                    async with self._database.begin() as session:
                        claimed = await repository.claim(
                            session, claim_s=claim_s, without=self._passed_over.keys(), passed_over=passed_over
                        )
                    if claimed is not None:
                        return claimed
            except BadRowError as error:
                await self._passed_over.add(error)
            except Exception as error:  # noqa: BLE001 - while the database is unavailable nothing can be claimed
                log.warning("webhooks.waiting", error=repr(error))
                await asyncio.sleep(_RETRY_AFTER_DATABASE_S)
                return None
            else:
                return None

    async def _deliver_in_room(self, delivery: ClaimedDelivery) -> None:
        try:
            await self._deliver(delivery)
        except Exception as error:  # noqa: BLE001 - the claim expires, and the delivery is retried
            log.warning("webhook.not_recorded", delivery=delivery.id, error=repr(error))
        finally:
            self._shares.give_back(delivery.account_id)
            self._room.release()
            # A delivery of this account may have been passed over.
            self._ended.set()

    async def _deliver(self, delivery: ClaimedDelivery) -> None:
        if delivery.attempt > self._settings.webhook_attempts:
            # The process ended in the last attempt, or could not record it.
            async with self._database.begin() as session:
                await repository.give_up(session, delivery, status=None, error="the last attempt was not finished")
            return
        async with self._database.begin() as session:
            secrets = await _secrets(session, delivery.account_id)
        status, error, pause_s = await self._call(delivery, secrets)
        async with self._database.begin() as session:
            if status is not None and not error:
                await repository.mark_delivered(session, delivery, status=status)
                outcome = "delivered"
            elif pause_s is None or delivery.attempt >= self._settings.webhook_attempts:
                await repository.give_up(session, delivery, status=status, error=error)
                outcome = "given_up"
            else:
                await repository.retry_later(session, delivery, pause_s=pause_s, status=status, error=error)
                outcome = "failed"
        _CALLS.labels(outcome).inc()
        if error:
            log.info("webhook.failed", tune_id=delivery.tune_id, delivery=delivery.id, attempt=delivery.attempt, error=error)

    async def _call(self, delivery: ClaimedDelivery, secrets: list[str]) -> tuple[int | None, str, float | None]:
        """Call once. Return the status, what went wrong, and the pause before the next attempt, None for no further attempt."""
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signing.sign(secret, delivery.id, timestamp, delivery.body) for secret in secrets),
        }
        pause_s = self._pause_s(delivery.attempt)
        try:
            # Only the status counts: the answer's body is never read.
            async with asyncio.timeout(self._settings.webhook_timeout_s):
                async with self._http.stream("POST", delivery.url, content=delivery.body, headers=headers) as answer:
                    status = answer.status_code
        except InvalidError as error:
            return None, error.message, pause_s
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return None, f"{type(error).__name__}: {error}".rstrip(": "), pause_s
        except Exception as error:  # noqa: BLE001 - a call that fails in any other way is an attempt too
            log.warning("webhook.call_failed", delivery=delivery.id, error=repr(error))
            return None, f"the call failed with {type(error).__name__}", pause_s
        if answer.is_success:
            return status, "", None
        if answer.is_redirect:
            return status, f"the receiver answered {status}; redirects are not followed", pause_s
        return status, f"the receiver answered {status}", None if status == _GONE else max(pause_s, _retry_after_s(answer))

    def _pause_s(self, attempt: int) -> float:
        # Random, so that deliveries that failed together are not all retried at the same moment.
        pause_s = self._settings.webhook_retry_s * _FACTOR ** (attempt - 1)
        return min(pause_s, _LONGEST_PAUSE_S) * random.uniform(0.9, 1.1)


async def _secrets(session: AsyncSession, account_id: UUID) -> list[str]:
    """Return the secrets that sign now: the current one, and for a day after a rotation the one before."""
    current = (await current_secret(session, account_id)).secret
    previous = await repository.previous_secret(session, account_id)
    return [current] if previous is None else [current, previous]


def _retry_after_s(answer: httpx.Response) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE_S) if asked.isascii() and asked.isdigit() else 0.0


def _show(row: WebhookDelivery) -> Delivery:
    return Delivery(
        id=row.id,
        sequence=row.sequence,
        type=json.loads(row.body)["type"],
        state=row.state,  # pyright: ignore[reportArgumentType] - the table's own check
        attempts=row.attempt,
        last_status=row.last_status,
        last_error=row.last_error,
        next_attempt_at=row.due_at if row.state == "pending" else None,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
