"""The AsyncAPI document of every event: `python -m shared.messaging.asyncapi` prints what `docs/asyncapi.json` holds.

FastStream does not see the events that leave through the outbox and its relay, and leaves out what no publisher declares. So a
publisher is declared here for each.
"""

import inspect
import json

from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI

from shared.messaging.events import EVENTS, Event
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX

_ABOUT = f"""Events that Tunesmith's services publish on Kafka, as CloudEvents 1.0 in binary mode: the headers `ce_id`,
`ce_type` (the channel's name here), `ce_source`, `ce_time`, `ce_specversion` and `content-type`, and a JSON body. Events of one
key are in order. `version` is the aggregate's after the event; a reminder has the version of the event that it repeats.
Delivery is at least once, each time with the same `ce_id`. Each topic has two more: `<topic>{RETRY_SUFFIX}`, for what is
retried later, and `<topic>{DEAD_LETTER_SUFFIX}`, for what could not be handled, with the reason in `ts_reason`. Fields are
added, never renamed, removed or required: consumers ignore the fields that they do not know."""


def document() -> str:
    """Return the document as JSON text; the same events give the same text."""
    broker = KafkaBroker("kafka:9092", logger=None)
    for name in sorted(EVENTS):
        event = EVENTS[name]
        broker.publisher(event.topic, title=name, description=_about(event), schema=event)
    specification = AsyncAPI(broker, title="Tunesmith's events", version="1", description=" ".join(_ABOUT.split()))
    return json.dumps(json.loads(specification.to_specification().to_json()), indent=1, sort_keys=True) + "\n"


def _about(event: type[Event]) -> str:
    return f"{inspect.getdoc(event)} Keyed by `{event.key_field}`."


if __name__ == "__main__":
    print(document(), end="")
