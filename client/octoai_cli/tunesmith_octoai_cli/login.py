"""Saves the server and the key of the command, in the file that OctoAI's command and SDKs use."""

import os
from pathlib import Path
from typing import Any, cast

import yaml

from tunesmith.client import Client, TunesmithApiError


def path() -> Path:
    """Return the path of the file. octoai-sdk also reads its `token`; `endpoint` is our own addition."""
    return Path.home() / ".octoai" / "config.yaml"


def connect() -> Client:
    """Return a client of the server that the environment names, or of the one that `login` saved."""
    kept = _read()
    url = os.environ.get("TUNESMITH_URL") or kept.get("endpoint")
    token = os.environ.get("OCTOAI_TOKEN") or kept.get("token")
    if not url or not token:
        msg = "no server is known: run `octoai login`, or set TUNESMITH_URL and OCTOAI_TOKEN"
        raise TunesmithApiError(0, "not_configured", msg)
    return Client(url, token)


def keep(url: str, token: str) -> None:
    """Save server and key in a file that only its owner can read. Other entries of the file stay."""
    path().parent.mkdir(mode=0o700, exist_ok=True)
    draft = path().with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(yaml.safe_dump(_read() | {"endpoint": url, "token": token}))
    draft.replace(path())


def _read() -> dict[str, Any]:
    try:
        found: object = yaml.safe_load(path().read_text())
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        msg = f"{path()} is not valid YAML: correct it, or remove it and run `octoai login`"
        raise TunesmithApiError(0, "not_configured", msg) from error
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
