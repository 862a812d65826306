"""What a failed statement means: the database is away, or a value cannot be stored in it."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_CLASS_OF_DATA = "22"
"""The SQLSTATE class of values that do not fit, such as text with a NUL character or a number out of range."""


def is_away(error: BaseException) -> bool:
    """Say whether an error means that something is unreachable, rather than that what was asked is wrong."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, OSError | TimeoutError | PoolTimeoutError)


def is_value(error: BaseException) -> bool:
    """Say whether an error means that a value of the request fits no column."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(state, str) and state.startswith(_CLASS_OF_DATA)
