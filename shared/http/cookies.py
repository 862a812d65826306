"""The cookie of a browser that is signed in to the console, and the check that a request comes from a page of the console."""

from urllib.parse import urlsplit

from fastapi import Request, Response

from shared.errors import CrossSiteError

MARK = "X-Tunesmith-Console"
"""A header that a page of another origin cannot send without a preflight, which no service answers."""
_NAME = "tunesmith_login"


def cookie_name(public_url: str) -> str:
    """Return the cookie's name. With https, browsers let no other host and no plain HTTP set a cookie of this name."""
    return f"__Host-{_NAME}" if _is_secure(public_url) else _NAME


def _is_secure(public_url: str) -> bool:
    return public_url.startswith("https:")


def set_cookie(response: Response, public_url: str, token: str, max_age_s: int) -> None:
    """Give the browser a cookie, which no script can read. An age of 0 takes it away."""
    response.set_cookie(
        cookie_name(public_url),
        token,
        max_age=max_age_s,
        path="/",
        secure=_is_secure(public_url),
        httponly=True,
        samesite="lax",
    )


def check_same_site(request: Request) -> None:
    """Raise CrossSiteError unless a request that changes something was sent by a page of this origin.

    A browser sends the cookie with requests of other pages on the same host, whatever their port is, and with forms.
    """
    origin, host = request.headers.get("Origin", ""), request.headers.get("Host", "")
    # Browsers send Sec-Fetch-Site on https and on loopback addresses only.
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.headers.get(MARK) != "1" or site != "same-origin" or urlsplit(origin).netloc != host:
        msg = (
            f"a request by the console's cookie has to come from the console itself, with `{MARK}: 1`; "
            "from elsewhere, send an API key as `Authorization: Bearer <key>`"
        )
        raise CrossSiteError(msg)
