"""The rate limit of an account, which the replicas of a service share, and of tries that fail, by the address they come from.

The count of an account or an address is a row. A replica takes a part of what is left of the minute at once and spends it in
memory, so most requests need no write; together the replicas never allow more than the limit.
`docs/decisions/0012-shares.md` says why.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import NAMESPACE_URL, UUID, uuid5

from fastapi import Request
from sqlalchemy import func, text

from shared.database.retention import Expired, table_of
from shared.database.sessions import Database
from shared.database.tables import RequestRow
from shared.errors import LimitError, UnauthorizedError
from shared.shares import Turns

_PARTS = 50
"""Into how many parts the replicas divide a minute's requests. What one has taken, no other can use in that minute."""
_KNOWN_KEYS = 10_000
_WAIT_S = 10.0
_KEPT_MINUTES = 10
_FORGET_S = 0.25
"""How long a refusal of the database is repeated from memory: a flood of refused requests must not become a flood of writes."""

_TAKE = text("""
    WITH clock AS (SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::bigint AS minute,
                          mod(extract(epoch FROM clock_timestamp()), 60)::float / 60 AS passed,
                          CAST(:wanted AS int) AS wanted, CAST(:most AS int) AS most)
    INSERT INTO request_rates AS rate (account_id, service, minute, used, before, granted)
    SELECT CAST(:account_id AS uuid), CAST(:service AS text), minute, least(wanted, most), 0, least(wanted, most) FROM clock
    ON CONFLICT (account_id, service) DO UPDATE SET (minute, used, before, granted) = (
        SELECT clock.minute, new.used + new.part, new.before, new.part
        FROM clock, LATERAL (
            SELECT old.used, old.before,
                   greatest(0, least(clock.wanted, floor(clock.most - old.used - old.before * (1 - clock.passed))))::int AS part
            FROM (SELECT CASE WHEN rate.minute = clock.minute THEN rate.used ELSE 0 END AS used,
                         CASE rate.minute WHEN clock.minute THEN rate.before WHEN clock.minute - 1 THEN rate.used ELSE 0 END
                         AS before) AS old
        ) AS new
    )
    RETURNING granted, 60 - mod(extract(epoch FROM clock_timestamp()), 60)::float AS left_s
""")
"""The window slides: of the minute before, the part counts that is less than a minute ago."""


@dataclass
class _Part:
    """What this process may still allow until a moment of its own clock; nothing, after a refusal."""

    left: int
    until: float
    retry_s: int


class RequestRate:
    """Counts each account's requests of the last minute to all replicas of a service."""

    def __init__(self, database: Database, service: str, default: int) -> None:
        self._database = database
        self._service = service
        self._default = default
        self._parts: dict[UUID, _Part] = {}
        self._turns = Turns()

    async def count(self, account_id: UUID, own_limit: int | None) -> None:
        """Count one request. Raises LimitError over the account's own limit or, where that is None, the default."""
        self.spend(account_id, await self.reserve(account_id, own_limit))

    async def reserve(self, account_id: UUID, own_limit: int | None) -> "_Part":
        """Return a part of the minute's requests that has one left, for `spend`. Raises what `count` raises."""
        limit = self._default if own_limit is None else own_limit
        part = self._current(account_id)
        if part is None:
            msg = f"the account's other requests took {_WAIT_S:g} s; send fewer at a time, and retry in 1 s"
            # One task asks the database; the others spend what it gets.
            async with self._turns.turn(account_id, wait_s=_WAIT_S, message=msg):
                part = self._current(account_id) or await self._take(account_id, limit)
        if part.left > 0:
            return part
        msg = f"max_requests_per_minute: this account may send {limit} requests a minute; retry in {part.retry_s} s"
        raise LimitError(msg, headers={"Retry-After": str(part.retry_s)})

    def spend(self, account_id: UUID, part: "_Part") -> None:
        """Take one request from a part, with no wait since it was reserved."""
        part.left -= 1
        if not part.left:
            self._parts.pop(account_id, None)

    def _current(self, account_id: UUID) -> _Part | None:
        part = self._parts.get(account_id)
        return part if part is not None and part.until > time.monotonic() else None

    async def _take(self, account_id: UUID, limit: int) -> _Part:
        values = {"account_id": account_id, "service": self._service, "wanted": max(1, limit // _PARTS), "most": limit}
        async with self._database.begin() as session:
            # A count that is lost with the server costs nothing, and a request must not wait for its disk.
            await session.execute(text("SET LOCAL synchronous_commit = off"))
            granted, left_s = (await session.execute(_TAKE, values)).one()
        retry_s = max(1, round(left_s))
        until = time.monotonic() + (left_s if granted else _FORGET_S)
        part = self._parts[account_id] = _Part(granted, until, retry_s)
        if len(self._parts) > _KNOWN_KEYS:
            now = time.monotonic()
            self._parts = {known: kept for known, kept in self._parts.items() if kept.until > now}
        return part


class FailedTries:
    """Counts the keys or codes of each address that failed in the last minute, to all replicas together.

    Past the limit only keys that were valid lately are looked up, so an address that guesses does not lock out the clients that
    share it. Keys have 256 random bits: the limit saves the database work, and no guess would succeed
    without it. `message` says what is wrong, with `{limit}` in the place of the limit.
    """

    def __init__(self, database: Database, what: str, limit: int, message: str) -> None:
        self._rate = RequestRate(database, what, limit)
        self._message = message.format(limit=limit)
        self._turns = Turns()
        self._valid: OrderedDict[bytes, None] = OrderedDict()

    @asynccontextmanager
    async def attempt(self, address: str, digest: bytes) -> AsyncGenerator[None]:
        """Make a try, which fails when the block raises UnauthorizedError. Raises LimitError when too many have failed.

        Unknown keys of an address are tried one after the other, so that those that arrive at once are counted, too.
        """
        source = _source(address)
        if digest in self._valid:
            try:
                yield
            except UnauthorizedError:
                self._valid.pop(digest, None)
                with suppress(LimitError):
                    await self._rate.count(source, None)
                raise
            return
        msg = f"other unknown keys from this address took {_WAIT_S:g} s; send fewer at a time, and retry in 1 s"
        async with self._turns.turn(source, wait_s=_WAIT_S, message=msg):
            try:
                part = await self._rate.reserve(source, None)
            except LimitError as error:
                if digest not in self._valid:
                    msg = f"{self._message}; retry in {error.headers['Retry-After']} s"
                    raise LimitError(msg, headers=error.headers) from None
                part = None
            try:
                yield
            except UnauthorizedError:
                if part is not None:
                    self._rate.spend(source, part)
                raise
        self._valid[digest] = None
        self._valid.move_to_end(digest)
        if len(self._valid) > _KNOWN_KEYS:
            self._valid.popitem(last=False)


def client_address(request: Request) -> str:
    """Return the address of the client. The edge appends the one that it sees to what the client sent."""
    forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    return forwarded or (request.client.host if request.client else "")


def _source(address: str) -> UUID:
    """Return the id of an address in the table of rates. Of IPv6 that is a network of 64 bits, which one client has."""
    try:
        found = ip_address(address)
    except ValueError:
        return uuid5(NAMESPACE_URL, address)
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or ip_network((found, 64), strict=False)
    return uuid5(NAMESPACE_URL, str(found))


def expired() -> Expired:
    """Return the counts of minutes that are past."""
    return Expired(table_of(RequestRow), RequestRow.minute < func.extract("epoch", func.now()) / 60 - _KEPT_MINUTES)
