"""What the services tell each other is written down: docs/asyncapi.json says it as it is, so a changed fact shows as a diff."""

import json
from pathlib import Path

from shared.messaging.asyncapi import document
from shared.messaging.events import FACTS

WRITTEN = Path(__file__).parents[2] / "docs" / "asyncapi.json"


def test_the_document_is_of_the_facts_as_they_are() -> None:
    assert WRITTEN.read_text() == document(), "run `make asyncapi`, and look at the diff: does it only add?"


def test_every_fact_has_a_channel_on_its_topic_and_a_schema() -> None:
    found = json.loads(document())

    assert {name: channel["address"] for name, channel in found["channels"].items()} == {
        name: fact.topic for name, fact in FACTS.items()
    }
    assert {operation["action"] for operation in found["operations"].values()} == {"send"}
    for name, fact in FACTS.items():
        message = found["components"]["messages"][f"{name}:Message"]
        schema = found["components"]["schemas"][message["payload"]["$ref"].rpartition("/")[2]]
        assert set(schema["properties"]) == set(fact.model_fields), name
