"""The bodies that the client sends, and the checks of the answers that it gets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import httpx

from tunesmith.errors import TunesmithApiError
from tunesmith.models import TuneEvent

LAST_EVENTS = {"tune.succeeded", "tune.failed", "tune.cancelled"}
_FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg"}


def checked(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON of an answer. Raises TunesmithApiError when it is an error, or no answer of a Tunesmith server."""
    if answer.is_redirect:
        # Not followed: the API key would go to wherever the answer says.
        msg = (
            f"{answer.request.url} redirects to {answer.headers.get('Location', '')}: set TUNESMITH_URL to the address that "
            "the server has, with https if it is behind TLS"
        )
        raise TunesmithApiError(answer.status_code, "redirected", msg)
    if not answer.is_error:
        try:
            return answer.json()
        except ValueError:
            kind = answer.headers.get("Content-Type", "no content type")
            msg = f"{answer.request.url} answers {kind} where JSON is expected: check that TUNESMITH_URL is a Tunesmith server's"
            raise TunesmithApiError(answer.status_code, "not_json", msg) from None
    try:
        body: dict[str, Any] = answer.json()
        detail, code = body["detail"], body.get("code", "")
    except (ValueError, KeyError, TypeError):
        raise TunesmithApiError(answer.status_code, "", answer.text[:300] or answer.reason_phrase) from None
    if isinstance(detail, list):
        faults = cast("list[dict[str, Any]]", detail)
        detail = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
    raise TunesmithApiError(answer.status_code, code, detail)


def event_of(line: str) -> TuneEvent | None:
    """Return the event that a line of a stream holds; None for a line with no data."""
    return cast("TuneEvent", json.loads(line.removeprefix("data: "))) if line.startswith("data: ") else None


def asset_body(name: str, asset_type: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the body that creates an asset. Fields without a value are left out."""
    given = {key: value for key, value in more.items() if value is not None}
    return {"name": name, "asset_type": asset_type, "data": {"asset_type": asset_type, **data}, **given}


def upload_data(path: Path, asset_type: str, engine: str | None) -> dict[str, Any]:
    """Return the fields of an upload's `data` that follow from the file."""
    if asset_type == "file":
        return {"file_format": _FORMATS.get(path.suffix.lower(), "unknown")}
    return {"engine": engine, "file_format": "safetensors"}


def tune_body(
    name: str,
    base: str,
    files: Sequence[tuple[str, str | None]],
    trigger_word: str,
    steps: int,
    seed: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the body that starts a tune. `options` are more fields of `details`."""
    details = {
        "tune_type": "lora_tune",
        "base_checkpoint": {"checkpoint_id": base},
        "files": [{"file_id": file_id, "caption": caption} for file_id, caption in files],
        "steps": steps,
        "seed": seed,
        "trigger_words": [trigger_word],
        **options,
    }
    return {"name": name, "details": details}
