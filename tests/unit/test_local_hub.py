"""Published checkpoints are downloaded whole and unchanged, or not at all. A local server replaces the hub."""

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
    """What the server sends, and the requests that it got."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next responses ends early."""
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    replacement = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            replacement.asked.append({"path": self.path} | {name.lower(): value for name, value in self.headers.items()})
            if replacement.status != 200:
                self.send_error(replacement.status)
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(asked[1]) if asked and replacement.ranges else 0
            body = replacement.content[first:]
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if replacement.cut_after:
                body = body[: replacement.cut_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        replacement.url = f"http://127.0.0.1:{http.server_port}"
        monkeypatch.setenv("TUNESMITH_HF_ENDPOINT", replacement.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield replacement
        http.shutdown()
        thread.join()


def _download(folder: Path) -> Path:
    return hub.download(PIN, folder, lambda _downloaded: None, pauses_s=FAST)


def test_a_checkpoint_is_downloaded_by_its_commit(server: Hub, tmp_path: Path) -> None:
    place = _download(tmp_path)

    assert place.read_bytes() == CONTENT
    assert [asked["path"] for asked in server.asked] == [f"/someone/model/resolve/{'ab' * 20}/model.safetensors"]
    assert "authorization" not in server.asked[0]


def test_a_downloaded_file_is_not_downloaded_again(server: Hub, tmp_path: Path) -> None:
    _download(tmp_path)
    _download(tmp_path)

    assert len(server.asked) == 1


def test_the_token_comes_from_the_environment(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    _download(tmp_path)

    assert server.asked[0]["authorization"] == "Bearer hf_secret"


def test_a_download_continues_after_the_connection_broke(server: Hub, tmp_path: Path) -> None:
    server.cut_after = [1000, 500]

    assert _download(tmp_path).read_bytes() == CONTENT
    assert [asked.get("range") for asked in server.asked] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_later_call_continues_the_download(server: Hub, tmp_path: Path) -> None:
    server.cut_after = [1000, 0, 0, 0]
    with pytest.raises(UnavailableError, match=r"cannot be reached .* is kept"):
        _download(tmp_path)

    assert _download(tmp_path).read_bytes() == CONTENT
    assert server.asked[-1]["range"] == "bytes=1000-"


def test_a_server_without_ranges_sends_the_whole_file_again(server: Hub, tmp_path: Path) -> None:
    server.ranges, server.cut_after = False, [1000]

    assert _download(tmp_path).read_bytes() == CONTENT


def test_other_bytes_are_never_used(server: Hub, tmp_path: Path) -> None:
    server.content = bytes(len(CONTENT))

    with pytest.raises(InvalidError, match=f"not {PIN.sha256}: it was not used"):
        _download(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"])
def test_a_file_of_another_size_is_refused_before_its_download(server: Hub, tmp_path: Path, content: bytes) -> None:
    server.content = content

    with pytest.raises(InvalidError, match=f"has {len(content)} bytes, not the {len(CONTENT)} of the pinned file"):
        _download(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, InvalidError, "answered 401: set HF_TOKEN"),
        (403, InvalidError, "answered 403: set HF_TOKEN"),
        (404, InvalidError, "answered 404: the file is not there; set TUNESMITH_HF_ENDPOINT to a mirror"),
        (418, InvalidError, "answered 418"),
        (429, UnavailableError, "answered 429: try again later"),
        (503, UnavailableError, "answered 503: try again later"),
    ],
)
def test_a_refusal_says_what_to_do(server: Hub, tmp_path: Path, status: int, kind: type[Exception], advice: str) -> None:
    server.status = status

    with pytest.raises(kind, match=advice):
        _download(tmp_path)


def test_an_unavailable_hub_is_an_error_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(UnavailableError, match=r"http://127.0.0.1:9 cannot be reached"):
        _download(tmp_path)


def test_the_pins_are_whole() -> None:
    assert {name: pin.engine for name, pin in PINS.items()} == {"sd15": Engine.SD15, "sdxl": Engine.SDXL}
    for pin in PINS.values():
        assert re.fullmatch(r"[0-9a-f]{40}", pin.commit)
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256)
        assert pin.path.endswith(".safetensors")
