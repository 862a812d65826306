"""The error taxonomy: each error has an HTTP status, a stable code, and is retryable or not.

The same classes feed HTTP answers, failed tunes (`status_details`) and dead letters. A message says what is wrong, with field,
value and limit, and then what to do.
"""

import os
from typing import ClassVar


class TunesmithError(Exception):
    """Base of the errors that Tunesmith raises on purpose; the message is shown to the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


def public_reason(error: BaseException) -> str:
    """Return what an account may see of an unexpected error: no path of this machine, no address, no SQL and no values."""
    cause = error.__cause__ if isinstance(error, DiskError) else error
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno)
    return f"an unexpected error ({type(error).__name__})"


class InvalidError(TunesmithError):
    """A field of the request is wrong. The answer has FastAPI's form of a 422: a list of {loc, msg, type}."""

    status = 422
    code = "invalid"

    def __init__(self, message: str, *, loc: tuple[str | int, ...] = ("body",), kind: str = "value_error") -> None:
        super().__init__(message)
        self.loc = loc
        self.kind = kind


class UnauthorizedError(TunesmithError):
    """The request has no key, or one that is unknown, expired or revoked."""

    status = 401
    code = "unauthorized"


class ForbiddenError(TunesmithError):
    """The key is valid but lacks the scope."""

    status = 403
    code = "forbidden"


class CrossSiteError(ForbiddenError):
    """A request by the console's cookie does not come from a page of the console."""

    code = "cross_site"


class NotFoundError(TunesmithError):
    """The thing does not exist, or is another account's: the answer does not tell which."""

    status = 404
    code = "not_found"


class ConflictError(TunesmithError):
    """The request contradicts the state of the thing, such as a cancel of a tune that has ended."""

    status = 409
    code = "conflict"


class NameTakenError(ConflictError):
    """The name is in use in this account."""

    code = "name_taken"


class ChangedError(TunesmithError):
    """The thing has changed since the version that the request names in `If-Match`."""

    status = 412
    code = "changed"


class NotSupportedError(TunesmithError):
    """The request needs a part of the API that this server does not offer. 400, because clients retry a 5xx."""

    status = 400
    code = "not_supported"


class TooLargeError(TunesmithError):
    """The body is larger than the limit."""

    status = 413
    code = "too_large"


class TooSlowError(TunesmithError):
    """The body arrives more slowly than the server waits for it; the connection is closed, because the rest may still come."""

    status = 408
    code = "too_slow"
    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Connection": "close"})


class LimitError(TunesmithError):
    """A quota or rate is used up; `Retry-After` says when to retry."""

    status = 429
    code = "limit_exceeded"
    retryable = True


class UnavailableError(TunesmithError):
    """A part that is needed is unavailable; `Retry-After` says when to retry."""

    status = 503
    code = "unavailable"
    retryable = True


class DiskError(UnavailableError):
    """This machine's disk is full or fails; another process may still serve the request."""


class LeaseLostError(TunesmithError):
    """The write names an earlier lease epoch than the tune's: another trainer may hold the lease. Stop and write nothing."""

    status = 409
    code = "lease_lost"
