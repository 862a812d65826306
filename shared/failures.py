"""What a failed statement means: the database is away or has no tables yet, or a value cannot be stored in it."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_CLASS_OF_DATA = "22"
"""The SQLSTATE class of values that do not fit, such as text with a NUL character or a number out of range."""

_UNDEFINED_TABLE = "42P01"
_COMES_AND_GOES = ("08", "53300", "57P01", "57P02", "57P03")
"""SQLSTATEs of a server that goes down, comes up or has no connection left, and the class of connections that broke."""


def is_unavailable(error: BaseException) -> bool:
    """Say whether an error means that something is unreachable, rather than that what was asked is wrong."""
    if isinstance(error, DBAPIError):
        gone = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return gone or _state(error).startswith(_COMES_AND_GOES)
    return isinstance(error, OSError | TimeoutError | PoolTimeoutError)


def is_value(error: BaseException) -> bool:
    """Say whether an error means that a value of the request fits no column."""
    return _state(error).startswith(_CLASS_OF_DATA)


def is_unmigrated(error: BaseException) -> bool:
    """Say whether an error means that a table is missing, as it is before the migrations have run."""
    return _state(error) == _UNDEFINED_TABLE


def _state(error: BaseException) -> str:
    """Return PostgreSQL's SQLSTATE, empty where there is none."""
    return str(getattr(error.orig, "sqlstate", "")) if isinstance(error, DBAPIError) else ""
