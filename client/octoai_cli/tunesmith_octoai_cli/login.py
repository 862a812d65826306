"""Where the command's server and key are kept: the file that OctoAI's command and SDK knew."""

import os
from pathlib import Path
from typing import Any

import yaml

from tunesmith.client import Client, TunesmithApiError


def path() -> Path:
    """Return the file: its `token` is read by octoai-sdk, too; `endpoint` is ours."""
    return Path.home() / ".octoai" / "config.yaml"


def connect() -> Client:
    """Return a client of the server that the environment names, else the one that was logged in to."""
    kept = _read()
    url = os.environ.get("TUNESMITH_URL") or kept.get("endpoint")
    token = os.environ.get("OCTOAI_TOKEN") or kept.get("token")
    if not url or not token:
        msg = "no server is known: run `octoai login`, or set TUNESMITH_URL and OCTOAI_TOKEN"
        raise TunesmithApiError(0, "not_configured", msg)
    return Client(url, token)


def keep(url: str, token: str) -> None:
    """Write server and key down, for their owner alone; what else is in the file stays."""
    path().parent.mkdir(mode=0o700, exist_ok=True)
    draft = path().with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(yaml.safe_dump(_read() | {"endpoint": url, "token": token}))
    draft.replace(path())


def _read() -> dict[str, Any]:
    try:
        found = yaml.safe_load(path().read_text())
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        msg = f"{path()} is not YAML: mend it, or remove it and run `octoai login`"
        raise TunesmithApiError(0, "not_configured", msg) from error
    return found if isinstance(found, dict) else {}
