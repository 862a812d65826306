"""Calls the webhooks of tunes: signed, tried again with growing pauses, at least once each."""

import asyncio
import random
import time

import httpx
from prometheus_client import Counter

from services.scheduler.notifications import Notices
from services.scheduler.settings import SchedulerSettings
from services.scheduler.webhooks import repository
from services.scheduler.webhooks.repository import Delivery
from services.scheduler.webhooks.signing import secrets_of, sign
from shared.database.sessions import Database
from shared.errors import InvalidError
from shared.http import outbound
from shared.telemetry import get_logger

log = get_logger(__name__)

_CALLS = Counter("tunesmith_webhook_calls", "Calls of webhooks, by how they ended.", ["outcome"])
_POLL_S = 1.0
_RETRY_AFTER_DATABASE_S = 1.0
_FACTOR = 4.0
_LONGEST_PAUSE_S = 6 * 3600.0
_CLAIM_SLACK_S = 30.0
_GONE = 410
_USER_AGENT = "tunesmith-webhook/1"


class Webhooks:
    """Delivers what `shared/tunes/webhooks.py` wrote. Replicas share the work: each delivery is claimed in the database.

    A process that dies in the middle of a call has its claim expire, and the call is made again: receivers tell a repeat by
    `webhook-id`.
    """

    def __init__(
        self, database: Database, notices: Notices, settings: SchedulerSettings, *, http: httpx.AsyncClient | None = None
    ) -> None:
        self._database = database
        self._notices = notices
        self._settings = settings
        self._http = http or outbound.client(
            allow_private=settings.webhook_allow_private,
            timeout_s=settings.webhook_timeout_s,
            connections=settings.webhook_concurrency,
        )
        self._room = asyncio.Semaphore(settings.webhook_concurrency)

    async def run(self) -> None:
        """Deliver until cancelled."""
        never = asyncio.Event()
        async with self._http, asyncio.TaskGroup() as calls:
            with self._notices.about(None) as news:
                while True:
                    await self._room.acquire()
                    news.clear()
                    delivery = await self._claim()
                    if delivery is None:
                        self._room.release()
                        await self._notices.wait(news, never, _POLL_S)
                        continue
                    calls.create_task(self._deliver_in_room(delivery))

    async def deliver_next(self) -> bool:
        """Deliver what has been due longest; False when nothing is due."""
        delivery = await self._claim()
        if delivery is None:
            return False
        await self._deliver(delivery)
        return True

    async def forget(self) -> None:
        """Forget what ended long ago."""
        async with self._database.begin() as session:
            await repository.forget(session, older_than_s=self._settings.webhook_kept_s)

    async def _claim(self) -> Delivery | None:
        claim_s = self._settings.webhook_timeout_s + _CLAIM_SLACK_S
        try:
            async with self._database.begin() as session:
                return await repository.claim(session, claim_s=claim_s)
        except Exception as error:  # noqa: BLE001 - with the database away there is nothing to deliver, and it comes back
            log.warning("webhooks.waiting", error=repr(error))
            await asyncio.sleep(_RETRY_AFTER_DATABASE_S)
            return None

    async def _deliver_in_room(self, delivery: Delivery) -> None:
        try:
            await self._deliver(delivery)
        except Exception as error:  # noqa: BLE001 - its claim expires, and it is tried again
            log.warning("webhook.not_recorded", delivery=delivery.id, error=repr(error))
        finally:
            self._room.release()

    async def _deliver(self, delivery: Delivery) -> None:
        async with self._database.begin() as session:
            secrets = await secrets_of(session, delivery.account_id)
        status, error, pause_s = await self._call(delivery, secrets)
        async with self._database.begin() as session:
            if status is not None and not error:
                await repository.delivered(session, delivery, status=status)
                outcome = "delivered"
            elif pause_s is None or delivery.attempt >= self._settings.webhook_attempts:
                await repository.give_up(session, delivery, status=status, error=error)
                outcome = "given_up"
            else:
                await repository.try_again(session, delivery, pause_s=pause_s, status=status, error=error)
                outcome = "failed"
        _CALLS.labels(outcome).inc()
        if error:
            log.info("webhook.failed", tune_id=delivery.tune_id, delivery=delivery.id, attempt=delivery.attempt, error=error)

    async def _call(self, delivery: Delivery, secrets: list[str]) -> tuple[int | None, str, float | None]:
        """Call once; returns the status, what went wrong, and how long to wait before the next try, None for no further one."""
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(sign(secret, delivery.id, timestamp, delivery.body) for secret in secrets),
        }
        pause_s = self._pause_s(delivery.attempt)
        try:
            # The answer's body is never read: only whether it has come counts.
            async with asyncio.timeout(self._settings.webhook_timeout_s):
                async with self._http.stream("POST", delivery.url, content=delivery.body, headers=headers) as answer:
                    status = answer.status_code
        except InvalidError as error:
            return None, error.message, pause_s
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return None, f"{type(error).__name__}: {error}".rstrip(": "), pause_s
        if answer.is_success:
            return status, "", None
        if answer.is_redirect:
            return status, f"it answered {status}; redirects are not followed", pause_s
        return status, f"it answered {status}", None if status == _GONE else max(pause_s, _retry_after_s(answer))

    def _pause_s(self, attempt: int) -> float:
        # Spread out, or all that failed together would come again together.
        pause_s = self._settings.webhook_retry_s * _FACTOR ** (attempt - 1)
        return min(pause_s, _LONGEST_PAUSE_S) * random.uniform(0.9, 1.1)


def _retry_after_s(answer: httpx.Response) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE_S) if asked.isascii() and asked.isdigit() else 0.0
