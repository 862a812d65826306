"""What an import may name: a URL on an allowed host, or a model repository."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

import httpx

from services.upload.settings import UploadSettings
from shared.errors import InvalidError
from shared.http import outbound

_PORTS = {"https": 443, "http": 80}
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class HostRule:
    """An entry of the allow-list: `host` or `*.domain`; HTTPS on port 443 unless the entry names another scheme or port."""

    scheme: str
    pattern: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an entry. Raises ValueError, which should end the start of the process."""
        scheme, _, rest = text.strip().lower().rpartition("://")
        scheme = scheme or "https"
        host, _, port = rest.partition(":")
        if scheme not in _PORTS or not host or (port and not port.isdecimal()):
            msg = f"TUNESMITH_IMPORT_HOSTS: {text!r} is not host, *.domain, host:port or http://host:port"
            raise ValueError(msg)
        return cls(scheme, host, int(port) if port else _PORTS[scheme])

    def matches(self, url: httpx.URL) -> bool:
        """Say whether the rule allows this URL."""
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        port = url.port or _PORTS.get(url.scheme)
        return url.scheme == self.scheme and port == self.port and fnmatchcase(host, self.pattern)


class AllowedHosts:
    """The allow-list of hosts from which imports are fetched."""

    def __init__(self, settings: UploadSettings) -> None:
        self._rules = [HostRule.parse(text) for text in settings.import_hosts.split(",") if text.strip()]

    def check(self, url: str) -> None:
        """Check that a URL, given as `url` or the target of a redirect, is on an allowed host. Raises InvalidError."""
        loc = ("body", "url")
        # IP literals use the same allow-list as host names; the connection checks whether the address is public.
        outbound.check_url(url, field="url", loc=loc, allow_private=True)
        parsed = httpx.URL(url)
        if not any(rule.matches(parsed) for rule in self._rules):
            allowed = ", ".join(dict.fromkeys(rule.pattern for rule in self._rules))
            place = f"{parsed.scheme}://{parsed.netloc.decode()}"
            msg = f"url: this server fetches nothing from {place}; give a URL on an allowed host: {allowed}"
            raise InvalidError(msg, loc=loc)


def check_repo(repo: str, asset_type: str) -> None:
    """Check the value of `hf_repo`. Raises InvalidError."""
    if not _REPO.fullmatch(repo):
        msg = f"hf_repo: {repo!r} is not owner/name; for a single file of a repository give its URL as url"
        raise InvalidError(msg, loc=("body", "hf_repo"))
    if asset_type == "file":
        msg = "hf_repo: a model repository has weights, but an asset of type file is an image; give the image's URL as url"
        raise InvalidError(msg, loc=("body", "hf_repo"))
