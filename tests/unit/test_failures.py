"""What a failure means: is_unavailable, is_value and is_unmigrated, of asyncpg's errors as they are and as SQLAlchemy wraps them."""

import asyncio
import errno
import socket
import ssl

import asyncpg
import pytest
from PIL import UnidentifiedImageError
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from structlog.testing import capture_logs

from shared.errors import InvalidError, LimitError, UnavailableError
from shared.failures import is_unavailable, is_unmigrated, is_value, retry_while_unavailable, storable

_DBAPI = dialect.PGDialect_asyncpg.import_dbapi()


def _refused(sqlstate: str) -> asyncpg.PostgresError:
    """The error of a server that answers with this SQLSTATE."""
    return asyncpg.PostgresError.new({"S": "ERROR", "C": sqlstate, "M": "no"})


def _wrapped(error: Exception, *, connection_is_closed: bool = False) -> BaseException:
    """What SQLAlchemy raises for an error of asyncpg."""
    with pytest.raises(_DBAPI.Error) as translated:
        dialect.AsyncAdapt_asyncpg_connection._handle_exception_no_connection(_DBAPI, error)
    return DBAPIError.instance(
        "SELECT 1",
        {},
        translated.value,
        _DBAPI.Error,
        connection_invalidated=connection_is_closed,
        dialect=dialect.PGDialect_asyncpg(),
    )


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("08000", True),  # connection_exception
        ("08001", True),  # sqlclient_unable_to_establish_sqlconnection
        ("08003", True),  # connection_does_not_exist: asyncpg's for a connection that broke in the middle of a statement
        ("08006", True),  # connection_failure
        ("08P01", True),  # protocol_violation: also PgBouncer's for a server that it cannot reach
        ("25P03", True),  # idle_in_transaction_session_timeout
        ("40001", True),  # serialization_failure
        ("40P01", True),  # deadlock_detected
        ("53000", True),  # insufficient_resources
        ("53100", True),  # disk_full: the server's
        ("53200", True),  # out_of_memory
        ("53300", True),  # too_many_connections
        ("57P01", True),  # admin_shutdown
        ("57P02", True),  # crash_shutdown
        ("57P03", True),  # cannot_connect_now
        ("57P05", True),  # idle_session_timeout
        ("0A000", False),  # feature_not_supported
        ("22001", False),  # string_data_right_truncation
        ("22003", False),  # numeric_value_out_of_range
        ("22021", False),  # character_not_in_repertoire: text with a NUL
        ("22P05", False),  # untranslatable_character: JSON with a NUL
        ("23502", False),  # not_null_violation
        ("23503", False),  # foreign_key_violation
        ("23505", False),  # unique_violation
        ("23514", False),  # check_violation
        ("25006", True),  # read_only_sql_transaction: the server was demoted in a failover
        ("25P02", False),  # in_failed_sql_transaction
        ("28P01", False),  # invalid_password
        ("3D000", False),  # invalid_catalog_name: no such database
        ("40002", False),  # transaction_integrity_constraint_violation
        ("42501", False),  # insufficient_privilege
        ("42601", False),  # syntax_error
        ("42703", False),  # undefined_column
        ("42P01", False),  # undefined_table
        ("54000", False),  # program_limit_exceeded
        ("57014", False),  # query_canceled: a statement_timeout, or pg_cancel_backend
        ("55P03", True),  # lock_not_available: a lock_timeout
        ("57P04", False),  # database_dropped
        ("P0001", False),  # raise_exception
        ("XX000", False),  # internal_error
        ("99999", False),  # none that asyncpg knows
    ],
)
def test_the_sqlstate_decides_whether_the_database_is_unavailable(sqlstate: str, expected: bool) -> None:
    assert is_unavailable(_refused(sqlstate)) is expected
    assert is_unavailable(_wrapped(_refused(sqlstate))) is expected
    # The server may go down right after it refused a statement, which stays wrong.
    assert is_unavailable(_wrapped(_refused(sqlstate), connection_is_closed=True)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), True),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), True),
        (asyncpg.CannotConnectNowError("the database system is starting up"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("cannot call Transaction.commit(): the underlying connection is closed"), True),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False),
        (asyncpg.ClientConfigurationError("invalid DSN"), False),
        (asyncpg.TargetServerAttributeNotMatched("none of the hosts match the target attribute requirement"), True),
        (asyncpg.InternalClientError("unexpected"), False),
        (asyncpg.InvalidCachedStatementError("cached statement plan is invalid"), True),
        (asyncpg.DataError("invalid input for query argument $1: 1099511627776 (value out of int32 range)"), False),
    ],
)
def test_the_errors_of_asyncpg_itself_are_told_apart(error: Exception, expected: bool) -> None:
    assert is_unavailable(error) is expected
    assert is_unavailable(_wrapped(error)) is expected


def test_a_connection_that_sqlalchemy_found_closed_is_unavailable() -> None:
    misused = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")

    assert is_unavailable(_wrapped(misused, connection_is_closed=True))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionError("unexpected connection_lost() call"),
        TimeoutError(),
        OSError(errno.ETIMEDOUT, "Connection timed out"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 5432, 0, 0), [Errno 113] No route to host"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        ssl.SSLError(1, "record layer failure"),
        PoolTimeoutError("QueuePool limit of size 10 overflow 0 reached"),
        UnavailableError("the store does not answer"),
    ],
    ids=repr,
)
def test_what_does_not_answer_is_unavailable(error: Exception) -> None:
    assert is_unavailable(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "image.png"),
        PermissionError(errno.EACCES, "Permission denied", "work"),
        IsADirectoryError(errno.EISDIR, "Is a directory", "work"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.EIO, "Input/output error"),
        OSError("no file named model.safetensors"),
        UnidentifiedImageError("cannot identify image file"),
        StatementError("invalid UUID", "SELECT 1", {}, ValueError("x")),
        InvalidError("name: too long"),
        LimitError("max_unfinished_tunes: 3 are unfinished"),
        ValueError("x"),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_an_error_of_the_request_or_of_the_local_disk_is_not_unavailable(error: BaseException) -> None:
    assert not is_unavailable(error)


def test_a_value_that_fits_no_column_and_a_missing_table_are_told_apart() -> None:
    nul, missing_table = _wrapped(_refused("22021")), _wrapped(_refused("42P01"))
    too_large = _wrapped(asyncpg.DataError("invalid input for query argument $1: value out of int32 range"))

    assert (is_value(nul), is_value(too_large), is_value(missing_table)) == (True, True, False)
    assert (is_unmigrated(nul), is_unmigrated(missing_table)) == (False, True)
    assert is_unmigrated(_wrapped(_refused("42703"))), "a column is missing"


@pytest.mark.parametrize(
    ("text", "stored"),
    [("as it is: é\n\t😀", "as it is: é\n\t😀"), ("a NUL \0.", r"a NUL \x00."), ("half a pair \ud83d.", r"half a pair \ud83d.")],
)
def test_a_text_is_stored_without_the_characters_that_postgresql_refuses(text: str, stored: str) -> None:
    assert storable(text) == stored


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the loop, which take no time; its clock advances by them."""
    taken: list[float] = []
    monkeypatch.setattr("shared.failures.monotonic", lambda: sum(taken))

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr("shared.failures.asyncio.sleep", sleep)
    return taken


class _Fails:
    """Raises the given errors, one a call, and returns the number of the call after them."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.calls


async def test_a_call_is_repeated_with_growing_pauses_until_it_returns(pauses: list[float]) -> None:
    run = _Fails(*(UnavailableError("no answer") for _ in range(6)))

    with capture_logs() as logs:
        assert await retry_while_unavailable(run, log_event="test.waiting", key="a") == 7

    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert logs[0] == {
        "event": "test.waiting",
        "log_level": "warning",
        "error": "UnavailableError('no answer')",
        "retry_in_s": 0.5,
        "key": "a",
    }
    assert len(logs) == 1, "one line an outage"


async def test_any_other_error_is_raised_at_once(pauses: list[float]) -> None:
    run = _Fails(_wrapped(_refused("22021")))

    with pytest.raises(DBAPIError):
        await retry_while_unavailable(run, log_event="test.waiting")

    assert (run.calls, pauses) == (1, [])


async def test_the_last_error_is_raised_when_patience_ends(pauses: list[float]) -> None:
    run = _Fails(*(ConnectionRefusedError(number) for number in range(10)))

    with pytest.raises(ConnectionRefusedError) as last:
        await retry_while_unavailable(run, log_event="test.waiting", patience_s=2)

    assert pauses == [0.5, 1.0, 0.5], "the last call is made when the time is over"
    assert last.value.args == (3,)


async def test_a_cancellation_ends_the_loop() -> None:
    began = asyncio.Event()

    async def run() -> None:
        began.set()
        raise UnavailableError("no answer")

    waiting = asyncio.create_task(retry_while_unavailable(run, log_event="test.waiting"))
    await began.wait()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
