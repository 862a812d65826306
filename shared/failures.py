"""What a failure means: a dependency is unavailable, the database has no tables yet, or a value cannot be stored."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.errors import UnavailableError
from shared.telemetry import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 5.0

_CLASS_OF_DATA = "22"
"""The SQLSTATE class of values that do not fit, such as text with a NUL character or a number out of range.

asyncpg reports an argument that it cannot encode as 22000, without asking the server.
"""

_UNDEFINED = ("42P01", "42703")
"""The SQLSTATEs of a missing table and a missing column."""

_LOCK_TIMEOUT = "55P03"
"""The SQLSTATE of a lock that another transaction held for longer than `lock_timeout`."""

_TRANSIENT = (
    # A connection that broke.
    "08",
    # A transaction or a session that idled for too long, as in a process that was paused.
    "25P03",
    "57P05",
    # A transaction that lost to a concurrent one (serialization failure, deadlock, lock timeout): the client is to repeat it.
    "40001",
    "40P01",
    _LOCK_TIMEOUT,
    # A connection to a server that a failover has made a read-only replica.
    "25006",
    # A server without a free connection, memory or disk.
    "53",
    # A server that goes down or comes up.
    "57P01",
    "57P02",
    "57P03",
)
"""SQLSTATEs, and their classes, of errors that the same transaction may not meet again.

57014 is not one: a statement that exceeded its timeout would probably exceed it again.
"""

_NETWORK = frozenset(
    {
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EADDRNOTAVAIL,
        # The process has no free socket until it closes another one.
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
    }
)
_SEVERAL_ADDRESSES = "Multiple exceptions"
"""The beginning of asyncio's text when a host's addresses fail in different ways; that OSError has no errno."""


def is_unavailable(error: BaseException) -> bool:
    """Say whether the call may succeed later, because what it needs did not answer or gave up for a reason of its own.

    False for errors of the local disk: a missing file stays missing, and a full disk needs an operator.
    """
    if isinstance(error, OSError):
        return _is_network(error)
    if isinstance(error, UnavailableError | PoolTimeoutError):
        return True
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.PostgresError):
        # A migration changed a table under a prepared statement. SQLAlchemy prepares it again for the next transaction.
        return isinstance(cause, asyncpg.InvalidCachedStatementError) or _state(error).startswith(_TRANSIENT)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # asyncpg also raises InterfaceError where it is used wrongly; only the text tells.
    if isinstance(cause, asyncpg.InterfaceError):
        return "connection is closed" in str(cause)
    # During a failover no server has the attribute that the database's URL may ask for, such as being the primary.
    return isinstance(cause, asyncpg.TargetServerAttributeNotMatched)


def is_value(error: BaseException) -> bool:
    """Say whether an error means that a value of the request fits no column."""
    return _state(error).startswith(_CLASS_OF_DATA)


def is_locked(error: BaseException) -> bool:
    """Say whether an error means that another transaction has held a lock for too long."""
    return _state(error) == _LOCK_TIMEOUT


def is_unmigrated(error: BaseException) -> bool:
    """Say whether an error means that a table or a column is missing, as it is before the migrations have run."""
    return _state(error) in _UNDEFINED


def storable(text: str) -> str:
    r"""Return the text as PostgreSQL can store it, also in JSON: NUL characters and lone surrogates are escaped, as `\x00`.

    For texts that come from elsewhere, such as those of libraries' errors.
    """
    return text.encode(errors="backslashreplace").decode().replace("\0", r"\x00")


async def retry_while_unavailable(
    run: Callable[[], Awaitable[T]], *, log_event: str, patience_s: float | None = None, **log_fields: object
) -> T:
    """Return the result of `run`; while its error `is_unavailable`, pause and call it again.

    Other errors are raised at once. After `patience_s` seconds the last error is raised; None waits without a limit. The first
    retry is logged as `log_event` with `log_fields`.

    A COMMIT whose connection broke may have happened, so `run` must be safe to repeat.
    """
    give_up_at = None if patience_s is None else monotonic() + patience_s
    pause_s, logged = _FIRST_PAUSE_S, False
    while True:
        try:
            return await run()
        except Exception as error:
            if not is_unavailable(error):
                raise
            left_s = _MAX_PAUSE_S if give_up_at is None else give_up_at - monotonic()
            if left_s <= 0:
                raise
            retry_in_s = min(pause_s, left_s)
            # One line an outage, not one an attempt.
            if not logged:
                log.warning(log_event, error=repr(error), retry_in_s=round(retry_in_s, 2), **log_fields)
            logged = True
        await asyncio.sleep(retry_in_s)
        pause_s = min(pause_s * 2, _MAX_PAUSE_S)


def _driver_error(error: BaseException) -> BaseException | None:
    """Return asyncpg's own error, which SQLAlchemy wraps twice, or any other error unchanged."""
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error


def _state(error: BaseException) -> str:
    """Return PostgreSQL's SQLSTATE, or an empty string."""
    cause = _driver_error(error)
    return str(getattr(cause, "sqlstate", None) or "") if isinstance(cause, asyncpg.PostgresError) else ""


def _is_network(error: OSError) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror | socket.herror | ssl.SSLError):
        return True
    return error.errno in _NETWORK or str(error).startswith(_SEVERAL_ADDRESSES)
