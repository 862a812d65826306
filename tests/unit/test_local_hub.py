"""Published checkpoints come from the hub whole and unchanged, or not at all; a server on this machine stands in for it."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.local import hub
from deploy.local.hub import PINS, Pin
from shared.engines import Engine
from shared.errors import InvalidError, UnavailableError

CONTENT = bytes(range(256)) * 16
PIN = Pin(
    engine=Engine.SD15,
    repository="someone/model",
    commit="ab" * 20,
    path="model.safetensors",
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="test",
)
FAST = (0.0, 0.0)


@dataclass
class Hub:
    """What the stand-in sends, and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stand_in = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stand_in.asked.append({"path": self.path} | {name.lower(): value for name, value in self.headers.items()})
            if stand_in.status != 200:
                self.send_error(stand_in.status)
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(asked[1]) if asked and stand_in.ranges else 0
            body = stand_in.content[first:]
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if stand_in.cut_after:
                body = body[: stand_in.cut_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        stand_in.url = f"http://127.0.0.1:{http.server_port}"
        monkeypatch.setenv("TUNESMITH_HF_ENDPOINT", stand_in.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield stand_in
        http.shutdown()
        thread.join()


def _download(folder: Path) -> Path:
    return hub.download(PIN, folder, lambda _here, _of: None, pauses_s=FAST)


def test_a_checkpoint_comes_by_its_commit(server: Hub, tmp_path: Path) -> None:
    place = _download(tmp_path)

    assert place.read_bytes() == CONTENT
    assert [asked["path"] for asked in server.asked] == [f"/someone/model/resolve/{'ab' * 20}/model.safetensors"]
    assert "authorization" not in server.asked[0]


def test_what_is_here_is_not_fetched_again(server: Hub, tmp_path: Path) -> None:
    _download(tmp_path)
    _download(tmp_path)

    assert len(server.asked) == 1


def test_the_token_comes_from_the_environment(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    _download(tmp_path)

    assert server.asked[0]["authorization"] == "Bearer hf_secret"


def test_a_broken_download_goes_on_where_it_was(server: Hub, tmp_path: Path) -> None:
    server.cut_after = [1000, 500]

    assert _download(tmp_path).read_bytes() == CONTENT
    assert [asked.get("range") for asked in server.asked] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_later_call_goes_on_too(server: Hub, tmp_path: Path) -> None:
    server.cut_after = [1000, 0, 0, 0]
    with pytest.raises(UnavailableError, match=r"cannot be reached .* is kept"):
        _download(tmp_path)

    assert _download(tmp_path).read_bytes() == CONTENT
    assert server.asked[-1]["range"] == "bytes=1000-"


def test_a_server_without_ranges_sends_all_again(server: Hub, tmp_path: Path) -> None:
    server.ranges, server.cut_after = False, [1000]

    assert _download(tmp_path).read_bytes() == CONTENT


def test_other_bytes_are_never_used(server: Hub, tmp_path: Path) -> None:
    server.content = bytes(len(CONTENT))

    with pytest.raises(InvalidError, match=f"not {PIN.sha256}: it was not used"):
        _download(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(server: Hub, tmp_path: Path, content: bytes) -> None:
    server.content = content

    with pytest.raises(InvalidError, match=f"has {len(content)} bytes, not the {len(CONTENT)} of the pinned file"):
        _download(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, InvalidError, "answered 401: set HF_TOKEN"),
        (403, InvalidError, "answered 403: set HF_TOKEN"),
        (404, InvalidError, "answered 404: it is gone from there; TUNESMITH_HF_ENDPOINT may name a mirror"),
        (418, InvalidError, "answered 418"),
        (429, UnavailableError, "answered 429: try again later"),
        (503, UnavailableError, "answered 503: try again later"),
    ],
)
def test_a_refusal_says_what_to_do(server: Hub, tmp_path: Path, status: int, kind: type[Exception], advice: str) -> None:
    server.status = status

    with pytest.raises(kind, match=advice):
        _download(tmp_path)


def test_a_hub_that_is_away_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(UnavailableError, match=r"http://127.0.0.1:9 cannot be reached"):
        _download(tmp_path)


def test_the_pins_are_whole() -> None:
    assert {name: pin.engine for name, pin in PINS.items()} == {"sd15": Engine.SD15, "sdxl": Engine.SDXL}
    for pin in PINS.values():
        assert re.fullmatch(r"[0-9a-f]{40}", pin.commit)
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256)
        assert pin.path.endswith(".safetensors")
