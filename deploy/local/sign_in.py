"""The link that opens a local stack's console signed in."""

import httpx

from deploy.local.paths import StackPaths

_TIMEOUT_S = 5.0


def console_line(paths: StackPaths, url: str) -> str:
    """Return a line that says how to open the console: a link for one browser and 10 minutes, or the command that makes one."""
    try:
        headers = {"Authorization": f"Bearer {paths.api_key.read_text()}"}
        made = httpx.post(f"{url}/console/login/codes", headers=headers, timeout=_TIMEOUT_S).raise_for_status()
        return f"console, signed in (once, within 10 minutes): {url}/sign-in#code={made.json()['code']}"
    except (OSError, httpx.HTTPError, ValueError, KeyError):
        # The stack is ready all the same.
        return f"console: {url} (`tunesmith console` opens it signed in)"
