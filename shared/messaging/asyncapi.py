"""The AsyncAPI document of every fact: `python -m shared.messaging.asyncapi` prints what `docs/asyncapi.json` holds.

Facts leave through the outbox and its relay, which FastStream does not see, so a publisher is declared here for each: the
document leaves out what no publisher declares.
"""

import inspect
import json

from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI

from shared.messaging.events import FACTS, Fact
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX

_ABOUT = f"""Facts that Tunesmith's services tell each other by Kafka, as CloudEvents 1.0 in binary mode: the headers `ce_id`,
`ce_type` (the channel's name here), `ce_source`, `ce_time`, `ce_specversion` and `content-type`, and a JSON body. Facts of one
key are in order; `version` is the aggregate's after the fact, and a fact that is not newer than what is known changes nothing.
Delivery is at least once, with one `ce_id` however often. Beside each topic stand `<topic>{RETRY_SUFFIX}`, for what is tried
again later, and `<topic>{DEAD_LETTER_SUFFIX}`, for what could not be handled, with the reason in `ts_reason`. Fields are added,
never renamed, removed or required: readers pass over those that they do not know."""


def document() -> str:
    """Return the document as JSON text, the same for the same facts."""
    broker = KafkaBroker("kafka:9092", logger=None)
    for name in sorted(FACTS):
        fact = FACTS[name]
        broker.publisher(fact.topic, title=name, description=_about(fact), schema=fact)
    specification = AsyncAPI(broker, title="Tunesmith's facts", version="1", description=" ".join(_ABOUT.split()))
    return json.dumps(json.loads(specification.to_specification().to_json()), indent=1, sort_keys=True) + "\n"


def _about(fact: type[Fact]) -> str:
    return f"{inspect.getdoc(fact)} Keyed by `{fact.key_field}`."


if __name__ == "__main__":
    print(document(), end="")
