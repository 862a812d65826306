"""docs/asyncapi.json describes the events as they are, so that a changed event shows as a diff."""

import json
from pathlib import Path

from shared.messaging.asyncapi import document
from shared.messaging.events import EVENTS

WRITTEN = Path(__file__).parents[2] / "docs" / "asyncapi.json"


def test_the_document_describes_the_events_as_they_are() -> None:
    assert WRITTEN.read_text() == document(), "run `make asyncapi`, and look at the diff: does it only add?"


def test_every_event_has_a_channel_on_its_topic_and_a_schema() -> None:
    found = json.loads(document())

    assert {name: channel["address"] for name, channel in found["channels"].items()} == {
        name: event.topic for name, event in EVENTS.items()
    }
    assert {operation["action"] for operation in found["operations"].values()} == {"send"}
    for name, event in EVENTS.items():
        message = found["components"]["messages"][f"{name}:Message"]
        schema = found["components"]["schemas"][message["payload"]["$ref"].rpartition("/")[2]]
        assert set(schema["properties"]) == set(event.model_fields), name
