"""The exit codes of the command, and the one line that it prints for each error.

0 is done, 1 refused or failed, 2 a wrong command line, 3 a server that is unavailable, 4 a key that is refused, 5 a thing that
does not exist, 6 a tune or an asset that did not succeed, and 130 an interruption.
"""

import os
from http import HTTPStatus

import httpx

from tunesmith.errors import TunesmithApiError

FAILED, WRONG_LINE, UNAVAILABLE, KEY_REFUSED, NOT_FOUND, NOT_SUCCEEDED, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
_BY_STATUS = {
    HTTPStatus.UNAUTHORIZED: KEY_REFUSED,
    HTTPStatus.FORBIDDEN: KEY_REFUSED,
    HTTPStatus.NOT_FOUND: NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: UNAVAILABLE,
    HTTPStatus.BAD_GATEWAY: UNAVAILABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: UNAVAILABLE,
}
_BY_CODE = {"not_configured": WRONG_LINE, "failed": NOT_SUCCEEDED, "cancelled": NOT_SUCCEEDED, "rejected": NOT_SUCCEEDED}


def exit_code(error: TunesmithApiError) -> int:
    """Return the exit code for an error of the server, or of the client itself."""
    if error.status == 0:
        return _BY_CODE.get(error.code, FAILED)
    return _BY_STATUS.get(HTTPStatus(error.status), FAILED) if error.status in list(HTTPStatus) else FAILED


def line_of(error: Exception) -> tuple[str, int] | None:
    """Return what to print for an error, and the exit code; None for one that is a mistake in the client."""
    if isinstance(error, TunesmithApiError):
        return str(error), exit_code(error)
    if isinstance(error, httpx.TransportError):
        msg = f"{error.request.url} cannot be reached ({error}): check the address, and that its server runs"
        return msg, UNAVAILABLE
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return f"{os.fsencode(error.filename).decode(errors='replace')}: {error.strerror}", FAILED
    return None
