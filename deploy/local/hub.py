"""Downloads published checkpoints from the hub, each pinned by commit, size and SHA-256. A download can be resumed."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from shared.engines import Engine
from shared.errors import InvalidError, UnavailableError

HUB_VARIABLE, TOKEN_VARIABLE = "TUNESMITH_HF_ENDPOINT", "HF_TOKEN"
DEFAULT_HUB = "https://huggingface.co"
_TIMEOUT = httpx.Timeout(30, connect=10)
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses before each attempt to continue after the connection broke. Progress resets them to the first."""

Report = Callable[[int], None]
"""Called with the number of bytes that are downloaded."""


@dataclass(frozen=True)
class Pin:
    """One file of one commit of a repository."""

    engine: Engine
    repository: str
    commit: str
    path: str
    size_bytes: int
    sha256: str
    licence: str

    @property
    def address(self) -> str:
        """The file's path below the hub's address."""
        return f"/{self.repository}/resolve/{self.commit}/{self.path}"


# Several independent public sources give the same commit, size and SHA-256 (the hub shows it as the LFS object's name): install
# scripts and model lists, among them SwarmUI's for SDXL. The original repository of SD 1.5 was withdrawn; this is the copy that
# its users made, with its history.
PINS = {
    "sd15": Pin(
        engine=Engine.SD15,
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        commit="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        path="v1-5-pruned-emaonly.safetensors",
        size_bytes=4_265_146_304,
        sha256="6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa",
        licence="CreativeML OpenRAIL-M",
    ),
    "sdxl": Pin(
        engine=Engine.SDXL,
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        commit="462165984030d82259a11f4367a4eed129e94a7b",
        path="sd_xl_base_1.0.safetensors",
        size_bytes=6_938_078_334,
        sha256="31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
        licence="CreativeML Open RAIL++-M",
    ),
}


def download(pin: Pin, folder: Path, report: Report, *, pauses_s: tuple[float, ...] = _PAUSES_S) -> Path:
    """Return the path of the pinned file in `folder`. Downloads what is missing of it.

    `TUNESMITH_HF_ENDPOINT` names a mirror, `HF_TOKEN` the token for repositories that ask for one. Raises InvalidError when the
    hub refuses the request or has other bytes than the pinned ones, and UnavailableError when it cannot be reached.
    """
    place = folder / f"{pin.sha256}.safetensors"
    if place.is_file() and place.stat().st_size == pin.size_bytes and _hash(place) == pin.sha256:
        return place
    folder.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part")
    hub = os.environ.get(HUB_VARIABLE, DEFAULT_HUB).rstrip("/")
    token = os.environ.get(TOKEN_VARIABLE)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    waits = iter(pauses_s)
    # The hub redirects to a store on another host; httpx does not send the token there.
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=headers) as client:
        while (here := _size(partial)) < pin.size_bytes:
            try:
                _continue(client, f"{hub}{pin.address}", pin, partial, report)
            except httpx.TransportError as error:
                if _size(partial) > here:
                    waits = iter(pauses_s)
                _wait(waits, hub, error)
            else:
                if _size(partial) == here:
                    _wait(waits, hub, "it sent nothing")
    found = _hash(partial)
    if found != pin.sha256:
        partial.unlink()
        msg = f"{hub}{pin.address} has the SHA-256 {found}, not {pin.sha256}: it was not used; check that {hub} can be trusted"
        raise InvalidError(msg)
    partial.replace(place)
    return place


def _continue(client: httpx.Client, url: str, pin: Pin, partial: Path, report: Report) -> None:
    """Download what is missing of the file, in one request."""
    here = _size(partial)
    # With compression, ranges and lengths would count compressed bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={here}-"} if here else {})
    with client.stream("GET", url, headers=headers) as response:
        _check(response, url)
        # A server without support for ranges sends the whole file again.
        here = here if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0
        total = here + int(response.headers.get("Content-Length", pin.size_bytes - here))
        if total != pin.size_bytes:
            msg = f"{url} has {total} bytes, not the {pin.size_bytes} of the pinned file: it was not used"
            raise InvalidError(msg)
        with partial.open("ab" if here else "wb") as file:
            # Chunks as they arrive: with a fixed size, a chunk that is not full when the connection breaks would be lost.
            for chunk in response.iter_bytes():
                here += len(chunk)
                if here > pin.size_bytes:
                    msg = f"{url} sends more than the {pin.size_bytes} bytes of the pinned file: it was not used"
                    raise InvalidError(msg)
                file.write(chunk)
                report(here)


def _check(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        advice = f"set {TOKEN_VARIABLE} to the token of an account that may read it and has accepted its licence"
    elif status == HTTPStatus.NOT_FOUND:
        advice = f"the file is not there; set {HUB_VARIABLE} to a mirror that has it"
    elif status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        msg = f"{url} answered {status}: try again later, or set {HUB_VARIABLE} to a mirror; the part so far is kept"
        raise UnavailableError(msg)
    else:
        advice = f"set {HUB_VARIABLE} to another mirror"
    msg = f"{url} answered {status}: {advice}"
    raise InvalidError(msg)


def _wait(waits: Iterator[float], hub: str, error: object) -> None:
    pause_s = next(waits, None)
    if pause_s is None:
        msg = f"{hub} cannot be reached ({error!r}): try again, or set {HUB_VARIABLE} to a mirror; the part so far is kept"
        raise UnavailableError(msg)
    time.sleep(pause_s)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
