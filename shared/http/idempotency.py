"""`Idempotency-Key` on POST: a client that repeats a request whose answer was lost gets the same answer, not a second effect.

The key is stored in the transaction of the effect, per account and route, and kept for a day. A repeat with another body gets a
422, concurrent repeats wait for the first, and errors are not kept: a request that failed can be sent again with its key.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Header, Request, Response
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.retention import Expired
from shared.database.sessions import Database
from shared.database.tables import IDEMPOTENCY, Context
from shared.errors import InvalidError
from shared.http.auth import Principal

T = TypeVar("T")

REPLAYED_HEADER = "Idempotency-Replayed"
SECRET_FIELDS = frozenset({"hf_token_secret"})
"""Fields of a body that are left out of its hash: a hash of a secret helps to guess it."""
_KEPT = text("interval '24 hours'")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Replay(Exception):  # noqa: N818 - it ends a request early, but is no error
    """The request was answered before; `shared/http/app.py` sends the same answer again."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class IdempotentRequest:
    """One POST, with its `Idempotency-Key` if it has one."""

    def __init__(self, key: str | None, route: str, request_sha256: bytes, status: int, response: Response) -> None:
        self._key = key
        self._route = route
        self._request_sha256 = request_sha256
        self._status = status
        self._response = response

    async def run(
        self,
        database: Database,
        context: Context,
        caller: Principal,
        work: Callable[[AsyncSession], Awaitable[T]],
        *,
        in_turn: bool = False,
    ) -> T:
        """Do the work in a transaction and store its answer, or raise Replay with the answer that is stored.

        `in_turn` is for work that locks the account: the account's requests in this process then do it one after the other.
        Raises InvalidError when the key was used for another request.
        """
        async with database.begin(turn_of=caller.account_id if in_turn else None) as session:
            if self._key is None:
                return await work(session)
            known = await self._find(session, context, caller)
            if known is not None:
                raise Replay(known.status, known.body)
            answer = await work(session)
            body = self._response_body(answer)
            await self._keep(session, context, caller, status=self._status, body=body)
            return answer

    async def refer(self, session: AsyncSession, context: Context, caller: Principal, resource_id: str) -> str:
        """Store that this request makes the resource with this id, and return the id; for a repeat, that of the first's resource.

        For answers that are too large or too secret to store: the caller builds the answer from the resource. Raises InvalidError
        when the key was used for another request.
        """
        if self._key is None:
            return resource_id
        known = await self._find(session, context, caller)
        if known is None:
            await self._keep(session, context, caller, resource_id=resource_id)
            return resource_id
        self._response.headers[REPLAYED_HEADER] = "true"
        return known.resource_id

    async def _find(self, session: AsyncSession, context: Context, caller: Principal) -> Any:
        table = IDEMPOTENCY[context]
        # Concurrent requests with one key run one after the other; the lock ends with the transaction.
        name = f"{context} {caller.account_id} {self._route} {self._key}"
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
        mine = (table.c.account_id == caller.account_id) & (table.c.route == self._route) & (table.c.key == self._key)
        await session.execute(delete(table).where(mine, table.c.created_at < func.now() - _KEPT))
        known = (await session.execute(select(table).where(mine))).one_or_none()
        if known is not None and known.request_sha256 != self._request_sha256:
            msg = "Idempotency-Key: this key was used for another request; send a new request with a new key"
            raise InvalidError(msg, loc=("header", "Idempotency-Key"))
        return known

    async def _keep(self, session: AsyncSession, context: Context, caller: Principal, **answer: Any) -> None:
        row = {
            "account_id": caller.account_id,
            "route": self._route,
            "key": self._key,
            "request_sha256": self._request_sha256,
        }
        await session.execute(insert(IDEMPOTENCY[context]).values(row | answer))

    @staticmethod
    def _response_body(answer: Any) -> bytes:
        return answer.model_dump_json(by_alias=True).encode()


async def _of(
    request: Request,
    response: Response,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Repeats of the request with this key get the first one's answer, for 24 hours.",
        ),
    ] = None,
) -> IdempotentRequest:
    if key is not None and not _KEY.fullmatch(key):
        msg = "Idempotency-Key: the key has other characters or another length; send 1 to 255 visible ASCII characters"
        raise InvalidError(msg, loc=("header", "Idempotency-Key"))
    route = request.scope["route"]
    digest = request_digest(request.url.path, request.url.query, await request.body()) if key else b""
    return IdempotentRequest(key, f"{request.method} {route.path}", digest, route.status_code or 200, response)


Once = Annotated[IdempotentRequest, Depends(_of)]
"""The type of the parameter of a route that takes an `Idempotency-Key`."""


def request_digest(path: str, query: str, body: bytes) -> bytes:
    """Return the SHA-256 of a request's path, query and body. The body's secrets and its JSON formatting do not change it."""
    try:
        content = json.dumps(_public(json.loads(body)), sort_keys=True).encode() if body else b""
    except (ValueError, RecursionError):
        content = body
    return hashlib.sha256(b"\0".join([path.encode(), query.encode(), content])).digest()


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _public(inner) for name, inner in fields.items() if name not in SECRET_FIELDS}
    return [_public(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value


def expired(context: Context) -> Expired:
    """Return the answers that were kept for a day."""
    table = IDEMPOTENCY[context]
    return Expired(table, table.c.created_at < func.now() - _KEPT)
