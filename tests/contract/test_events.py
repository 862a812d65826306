"""Every event that was ever published must still parse: `golden/` holds one of each kind, as it was first published.

A change to an event that makes its golden file fail breaks every outbox and topic that holds the old form. Add fields with a
default; never rename, remove or require one.
"""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from shared.messaging import cloudevents
from shared.messaging.cloudevents import MalformedError
from shared.messaging.events import EVENTS
from shared.messaging.topics import TOPICS

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_every_event_has_a_golden_form() -> None:
    assert {path.stem for path in GOLDEN} == set(EVENTS)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_golden_form_still_means_the_same(path: Path) -> None:
    published = json.loads(path.read_text())
    event = cloudevents.parse({"ce_type": path.stem}, path.read_bytes())

    now = event.model_dump(mode="json")
    assert {name: now[name] for name in published} == published
    assert event.key


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_unknown_fields_of_a_newer_publisher_are_ignored(path: Path) -> None:
    newer = json.loads(path.read_text()) | {"added_later": 1}

    assert cloudevents.parse({"ce_type": path.stem}, json.dumps(newer).encode())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_event_without_its_version_is_malformed(path: Path) -> None:
    broken = json.loads(path.read_text())
    del broken["version"]

    with pytest.raises(MalformedError, match="version"):
        cloudevents.parse({"ce_type": path.stem}, json.dumps(broken).encode())


def test_every_event_travels_on_a_topic_of_the_table() -> None:
    assert {event.topic for event in EVENTS.values()} == {topic.name for topic in TOPICS}


def test_the_headers_are_cloudevents_in_binary_mode() -> None:
    event = cloudevents.parse({"ce_type": "tune.queued"}, (GOLDEN[0].parent / "tune.queued.json").read_bytes())
    event_id = uuid4()
    headers = cloudevents.headers(event, event_id, source="tunes")

    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == "tune.queued"
    assert headers["ce_source"] == "tunesmith/tunes"
    assert cloudevents.event_id(headers) == event_id


@pytest.mark.parametrize("headers", [{}, {"ce_id": "1"}, {"ce_id": ""}])
def test_an_event_without_an_id_is_malformed(headers: dict[str, str]) -> None:
    with pytest.raises(MalformedError, match="ce_id"):
        cloudevents.event_id(headers)
