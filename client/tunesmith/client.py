"""A client of Tunesmith's HTTP API."""

import base64
import json
import os
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx

from tunesmith import image_files
from tunesmith.image_files import shown
from tunesmith.models import Asset, Generated, GeneratedImage, Tune, WhatIf

_TIMEOUT_S = 300.0
_POLL_S = 0.5
_PATIENCE_S = 20.0
"""Seconds for which a request is retried that the server refused with `Retry-After`."""
_LAST_EVENTS = {"tune.succeeded", "tune.failed", "tune.cancelled"}
_FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg"}


class TunesmithApiError(Exception):
    """The server refused a request. `status` is the HTTP status, `code` the server's stable name for the error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """A client of one Tunesmith server.

    `url` and `token` default to the environment's TUNESMITH_URL and OCTOAI_TOKEN. For the local stack, `tunesmith env` prints
    both.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        url, token = url or os.environ.get("TUNESMITH_URL"), token or os.environ.get("OCTOAI_TOKEN")
        if not url or not token:
            msg = (
                "TUNESMITH_URL and OCTOAI_TOKEN are not set: set them to the server's address and an API key, or start a local "
                'stack with `tunesmith up` and run: eval "$(tunesmith env)"'
            )
            raise TunesmithApiError(0, "not_configured", msg)
        self.url, token = url.strip().rstrip("/"), token.strip()
        if not token.isascii() or not token.isprintable():
            raise TunesmithApiError(0, "not_configured", "OCTOAI_TOKEN has characters that no API key has: copy the key again")
        try:
            self._http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT_S)
        except httpx.InvalidURL as error:
            msg = f"TUNESMITH_URL is {self.url!r}, which is no address ({error}): give it as http://HOST:PORT"
            raise TunesmithApiError(0, "not_configured", msg) from error
        # Presigned URLs carry their own signature. The store must not see the API key.
        self._plain = httpx.Client(timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        """Return the client. At the end of the `with` block its connections are closed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections."""
        self._http.close()
        self._plain.close()

    def sign_in_link(self) -> str:
        """Return a link that signs one browser in to the console with this client's key. It works once, within 10 minutes."""
        return f"{self.url}/sign-in#code={self._call('POST', '/console/login/codes')['code']}"

    def upload(
        self,
        path: Path,
        *,
        name: str | None = None,
        asset_type: str = "file",
        engine: str | None = None,
        data: dict[str, Any] | None = None,
        description: str = "",
        is_public: bool = False,
    ) -> Asset:
        """Upload a file into the library and return the new asset, which the server has still to check.

        Without `name`, the asset's name is made from the file's. `data` holds more fields of the asset's `data`, for example
        `{"trigger_words": ["sks1"]}`.
        """
        if path.stat().st_size == 0:
            raise TunesmithApiError(0, "empty", f"{shown(path)}: the file is empty: save it again, and upload it then")
        name = name or image_files.default_name(path)
        if asset_type == "file":
            given = {"file_format": _FORMATS.get(path.suffix.lower(), "unknown")}
        else:
            given = {"engine": engine, "file_format": "safetensors"}
        more = {"description": description, "is_public": is_public}
        try:
            created = self._create_asset(name, asset_type, given | (data or {}), **more)
            self._put(created["transfer_api"]["put_url"], path)
            self._call("POST", f"/v1/assets/{created['asset']['id']}/complete-upload", json={"token": ""})
            return self.asset(created["asset"]["id"])
        except TunesmithApiError as error:
            raise TunesmithApiError(error.status, error.code, f"{shown(path)}: {error}") from error

    def _put(self, url: str, path: Path) -> None:
        with path.open("rb") as file:
            put = self._plain.put(url, content=file)
        if put.is_error:
            raise TunesmithApiError(put.status_code, "upload_failed", f"the store refused the upload: {put.text[:300]}")

    def import_asset(
        self,
        url: str | None = None,
        *,
        name: str,
        asset_type: str,
        data: dict[str, Any],
        description: str = "",
        is_public: bool = False,
        hf_repo: str | None = None,
        hf_token: str | None = None,
    ) -> Asset:
        """Let the server download a file into the library, and return the new asset before the download is done.

        The file comes from `url`, whose host the server must allow, or from `hf_repo`, a model repository (`owner/name`).
        `hf_token` opens a gated repository.
        """
        source = {"url": url, "hf_repo": hf_repo, "hf_token_secret": hf_token}
        more = {"description": description, "is_public": is_public} | {key: value for key, value in source.items() if value}
        return Asset.model_validate(self._create_asset(name, asset_type, data, **more)["asset"])

    def asset(self, name_or_id: str) -> Asset:
        """Return an asset by id, name or `octoai:NAME`."""
        return Asset.model_validate(self._call("GET", f"/v1/assets/{name_or_id}")["asset"])

    def wait_for_asset(self, asset: Asset, timeout_s: float = 120.0) -> Asset:
        """Wait until the asset is ready and return it. Raises TunesmithApiError if it is rejected or not ready in time."""
        deadline = time.monotonic() + timeout_s
        while (now := self.asset(asset.id)).status != "ready":
            if now.status in {"rejected", "error", "deleted"}:
                raise TunesmithApiError(0, now.status, f"{now.name}: {now.status}: {now.status_details}")
            if time.monotonic() > deadline:
                raise TunesmithApiError(0, "timeout", f"{now.name}: still {now.status} after {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return now

    def assets(self, **filters: Any) -> list[Asset]:
        """Return the library, newest first. The filters are the API's, for example `asset_type="lora"`."""
        return [Asset.model_validate(item) for item in self._pages("/v1/assets", filters)]

    def count_assets(self) -> int:
        """Return how many assets the account has. It is the cheapest request that needs a valid key."""
        return self._call("GET", "/v1/assets", params={"limit": 1})["total"]

    def delete_asset(self, asset_id: str) -> None:
        """Delete an asset."""
        self._call("DELETE", f"/v1/assets/{asset_id}")

    def create_tune(
        self,
        name: str,
        *,
        base: str,
        files: Sequence[tuple[str, str | None]],
        trigger_word: str,
        steps: int,
        seed: int | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        **options: Any,
    ) -> Tune:
        """Start a tune on (asset id, caption) pairs. `options` are more fields of `details`, for example `rank=16`."""
        body = _tune_body(name, base, files, trigger_word, steps, seed, options)
        body |= {"webhook": webhook, "webhook_events_filter": webhook_events_filter}
        return Tune.model_validate(self._call("POST", "/v1/tune", json=body))

    def what_if(
        self,
        name: str,
        *,
        base: str,
        files: Sequence[tuple[str, str | None]],
        trigger_word: str,
        steps: int,
        seed: int | None = None,
        **options: Any,
    ) -> WhatIf:
        """Return advice and the estimated cost of a tune without starting it. Raises what `create_tune` would raise."""
        body = _tune_body(name, base, files, trigger_word, steps, seed, options)
        return WhatIf.model_validate(self._call("POST", "/v1/tune", params={"whatif": "true"}, json=body))

    def tune(self, tune_id: str) -> Tune:
        """Return a tune."""
        return Tune.model_validate(self._call("GET", f"/v1/tune/{tune_id}"))

    def tunes(self, **filters: Any) -> list[Tune]:
        """Return the tunes, newest first."""
        return [Tune.model_validate(item) for item in self._pages("/v1/tunes", filters)]

    def watch(self, tune_id: str) -> Iterator[Tune]:
        """Yield the tune every half second until it has ended. The last one has ended."""
        while not (now := self.tune(tune_id)).has_ended:
            yield now
            time.sleep(_POLL_S)
        yield now

    def tune_events(self, tune_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the events of a tune after a sequence number, oldest first."""
        events: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", f"/v1/tune/{tune_id}/events", params={"after": after})
            events += page["data"]
            if not page["has_more"]:
                return events
            after = page["data"][-1]["sequence"]

    def follow_tune(self, tune_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the events of a tune as they happen, until it has ended. Reconnects when the connection is lost."""
        url, ended = f"/v1/tune/{tune_id}/events/stream", False
        while not ended:
            try:
                with self._http.stream("GET", url, headers={"Last-Event-ID": str(after)}) as answer:
                    if answer.is_error:
                        answer.read()
                        _checked(answer)
                    ended = answer.status_code == HTTPStatus.NO_CONTENT
                    for line in answer.iter_lines():
                        if line.startswith("data: "):
                            event = json.loads(line.removeprefix("data: "))
                            after = event["sequence"]
                            ended = event["type"] in _LAST_EVENTS
                            yield event
            except httpx.TransportError:
                time.sleep(_POLL_S)

    def webhook_secret(self) -> str:
        """Return the secret that signs the account's webhooks."""
        return self._call("GET", "/v1/tunes/webhook-secret")["secret"]

    def cancel_tune(self, tune_id: str) -> Tune:
        """Ask a tune to stop, and return it."""
        return Tune.model_validate(self._call("POST", f"/v1/tune/{tune_id}/cancel"))

    def delete_tune(self, tune_id: str) -> None:
        """Delete a tune. Its images and its LoRA stay."""
        self._call("DELETE", f"/v1/tune/{tune_id}")

    def generate(self, prompt: str, *, engine: str = "sd", **options: Any) -> Generated:
        """Generate images. `options` are the API's fields, for example `loras={"name": 0.9}`, `seed=1` or `num_images=4`."""
        answer = self._send("POST", f"/generate/{engine}", json={"prompt": prompt, **options})
        body = _checked(answer)
        images = [
            GeneratedImage(data=base64.b64decode(image["image_b64"]), seed=image["seed"])
            for image in body["images"]
            if not image["removed_for_safety"]
        ]
        return Generated(images=images, notice=answer.headers.get("X-Tunesmith-Notice", ""))

    def _create_asset(self, name: str, asset_type: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
        body = {"name": name, "asset_type": asset_type, "data": {"asset_type": asset_type, **data}, **more}
        return self._call("POST", "/v1/assets", json=body)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return _checked(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request. Retries it while the server refuses it and says when to retry."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            answer = self._http.request(method, path, **options)
            wait_s = answer.headers.get("Retry-After", "")
            refused = answer.status_code in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
            if not refused or not wait_s.isdigit() or time.monotonic() + int(wait_s) > deadline:
                return answer
            time.sleep(int(wait_s))

    def _pages(self, path: str, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._call("GET", path, params={**filters, "offset": offset})
            yield from page["data"]
            offset += len(page["data"])
            if not page["has_more"]:
                return


def _checked(answer: httpx.Response) -> dict[str, Any]:
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


def _tune_body(
    name: str,
    base: str,
    files: Sequence[tuple[str, str | None]],
    trigger_word: str,
    steps: int,
    seed: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
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
