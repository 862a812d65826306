"""Makes a message of any record that the outbox, PostgreSQL and Kafka accept.

A record that could not become a dead letter would block its partition, or be lost.
"""

from dataclasses import dataclass

from aiokafka import ConsumerRecord

from shared.failures import storable
from shared.messaging.outbox import MAX_BODY_BYTES

CUT_HEADER = "ts_cut"
"""The header that names what was cut off the record."""
_MAX_TEXT = 1000
"""Characters kept of a key, of a header's name and value, and of a reason."""
_MAX_HEADERS = 64


@dataclass(frozen=True)
class Copy:
    """A copy of a record: its key, headers and body, escaped and cut where they do not fit."""

    key: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_whole(self) -> bool:
        """Whether nothing was cut."""
        return CUT_HEADER not in self.headers

    def with_headers(self, **headers: str) -> "Copy":
        """Return the copy with more headers, each made to fit."""
        return Copy(self.key, self.headers | {name: fit(text) for name, text in headers.items()}, self.body)

    def bare(self) -> "Copy":
        """Return a copy without the record's key, headers and body; it has the record's source and the reason."""
        kept = {name: text for name, text in self.headers.items() if name.startswith("ts_")}
        return Copy("", kept | {CUT_HEADER: "everything"}, b"")


def copy(record: ConsumerRecord[bytes, bytes]) -> Copy:
    """Return a copy of a record that fits."""
    key, body = record.key or b"", record.value or b""
    headers: dict[str, str] = {}
    cut: list[str] = []
    for name, value in list(record.headers)[:_MAX_HEADERS]:
        if not (_fits(name) and _fits(value)):
            cut.append(fit(name)[:50])
        headers[fit(name)] = fit(value)
    if len(record.headers) > _MAX_HEADERS:
        cut.append(f"{len(record.headers) - _MAX_HEADERS} headers")
    if not _fits(key):
        cut.append("key")
    if len(body) > MAX_BODY_BYTES:
        cut.append(f"body of {len(body)} bytes")
    if cut:
        headers[CUT_HEADER] = fit(", ".join(reversed(cut)))
    return Copy(fit(key), headers, body[:MAX_BODY_BYTES])


def fit(value: str | bytes | None) -> str:
    r"""Return text that PostgreSQL and Kafka accept, with `\x00` for a NUL, and `\xff` for a byte that is not UTF-8."""
    return _escaped(value)[:_MAX_TEXT]


def _fits(value: str | bytes | None) -> bool:
    # A character has at most four bytes.
    return len(value or b"") <= 4 * _MAX_TEXT and len(_escaped(value)) <= _MAX_TEXT


def _escaped(value: str | bytes | None) -> str:
    # Of a long value, decode only what may be kept.
    start = (value or b"")[: 4 * _MAX_TEXT]
    return storable(start.decode(errors="backslashreplace") if isinstance(start, bytes) else start)
