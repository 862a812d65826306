"""The built pages: which file answers which address, and with which headers.

`make install` builds them from `services/console/web` into `services/console/static`. The services run without them too.
"""

import base64
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.responses import FileResponse, Response

BUILT = Path(__file__).parent / "static"
_INDEX = "/index.html"
_IMMUTABLE = "/_app/immutable/"
"""Files below it have a hash of their content in their names."""
_ENCODINGS = {"br": ".br", "gzip": ".gz"}
"""By preference; each has the ending of a file that is compressed so."""
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_ANNOUNCER = "sha256-S8qMpvofolR8Mpjy4kQvEm7m1q8clzU4dfDH0AmvZjo="
"""The one style attribute in the pages: SvelteKit's announcer of the page's title to screen readers has it."""


@dataclass(frozen=True)
class Site:
    """The files of the built pages, by address: an address can name no other file."""

    files: Mapping[str, Path]
    policy: str

    @classmethod
    def read(cls, folder: Path) -> "Site":
        """Return the site in this folder."""
        files = {f"/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*") if path.is_file()}
        return cls(files, policy((folder / "index.html").read_bytes()))

    def response(self, request: Request, path: str) -> Response | None:
        """Return the file at this address, or the page, which chooses its content by the address; None for neither."""
        file = self.files.get(path)
        if path == _INDEX or (file is None and "text/html" in request.headers.get("Accept", "")):
            return self._send(request, _INDEX, {"Cache-Control": "no-cache", "Content-Security-Policy": self.policy})
        if file is None:
            return None
        lasting = path.startswith(_IMMUTABLE)
        return self._send(request, path, {"Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache"})

    def _send(self, request: Request, path: str, headers: dict[str, str]) -> Response:
        accepted = {part.split(";")[0].strip() for part in request.headers.get("Accept-Encoding", "").split(",")}
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        headers |= {"Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
        for encoding, ending in _ENCODINGS.items():
            if encoding in accepted and path + ending in self.files:
                return FileResponse(self.files[path + ending], headers=headers | {"Content-Encoding": encoding}, media_type=kind)
        return FileResponse(self.files[path], headers=headers, media_type=kind)


class Pages:
    """The site in a folder, which may be built, or built again, while the console runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._site: Site | None = None
        self._built_ns = 0

    def site(self) -> Site | None:
        """Return the site as it is built now; None if it is not built."""
        try:
            built_ns = (self._folder / "index.html").stat().st_mtime_ns
        except FileNotFoundError:
            return None
        # The build writes this file last, so the files that it names are there.
        if built_ns != self._built_ns:
            self._site, self._built_ns = Site.read(self._folder), built_ns
        return self._site


def policy(index: bytes) -> str:
    """Return the Content-Security-Policy of the page: scripts and styles of this origin, and SvelteKit's one inline script.

    The store shares the origin, so it needs no name of its own.
    """
    scripts = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in _INLINE.findall(index)
    )
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' {scripts}".rstrip(),
            "style-src 'self'",
            f"style-src-attr 'unsafe-hashes' '{_ANNOUNCER}'",
            "font-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "worker-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )
