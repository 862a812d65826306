"""The address and the key of a server, as they are given or as the environment has them."""

import os

import httpx

from tunesmith.errors import TunesmithApiError


def resolve(url: str | None, token: str | None) -> tuple[str, str]:
    """Return the server's address and the API key. Raises TunesmithApiError when one is missing or cannot be one."""
    url, token = url or os.environ.get("TUNESMITH_URL"), token or os.environ.get("OCTOAI_TOKEN")
    if not url or not token:
        msg = (
            "TUNESMITH_URL and OCTOAI_TOKEN are not set: set them to the server's address and an API key, or start a local "
            'stack with `tunesmith up` and run: eval "$(tunesmith env)"'
        )
        raise TunesmithApiError(0, "not_configured", msg)
    url, token = url.strip().rstrip("/"), token.strip()
    if not token.isascii() or not token.isprintable():
        raise TunesmithApiError(0, "not_configured", "OCTOAI_TOKEN has characters that no API key has: copy the key again")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        msg = f"TUNESMITH_URL is {url!r}, which is no address ({error}): give it as http://HOST:PORT"
        raise TunesmithApiError(0, "not_configured", msg) from error
    return url, token
