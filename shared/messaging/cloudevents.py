"""CloudEvents 1.0 in Kafka's binary mode: attributes in `ce_*` headers, the event's JSON as the body."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from pydantic import ValidationError

from shared.messaging.events import EVENTS, Event


class MalformedError(Exception):
    """The message is no event of Tunesmith's; the text says why."""


def headers(event: Event, event_id: UUID, *, source: str) -> dict[str, str]:
    """Return the message headers of an event."""
    return {
        "ce_specversion": "1.0",
        "ce_id": str(event_id),
        "ce_type": event.type,
        "ce_source": f"tunesmith/{source}",
        "ce_time": datetime.now(UTC).isoformat(),
        "content-type": "application/json",
    }


def decode_headers(raw: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """Return a message's headers as text; bytes that are not UTF-8 are replaced, and a header without a value is empty."""
    return {name: (value or b"").decode(errors="replace") for name, value in raw}


def event_id(found: Mapping[str, str]) -> UUID:
    """Return the event's id. Raises MalformedError."""
    try:
        return UUID(found.get("ce_id", ""))
    except ValueError as error:
        msg = f"the header ce_id is {found.get('ce_id')!r}; it must be a UUID"
        raise MalformedError(msg) from error


def parse(found: Mapping[str, str], body: bytes | None) -> Event:
    """Return the event in a message. Raises MalformedError."""
    kind = EVENTS.get(found.get("ce_type", ""))
    if kind is None:
        msg = f"the header ce_type is {found.get('ce_type')!r}; it must name one of the events in docs/asyncapi.json"
        raise MalformedError(msg)
    try:
        return kind.model_validate_json(body or b"")
    except ValidationError as error:
        msg = f"the body does not fit {kind.type}: {error.errors(include_url=False, include_input=False)}"
        raise MalformedError(msg) from error
