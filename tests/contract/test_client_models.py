"""The client's models say what the server's own say: each field has the same type in JSON, and may be null in the same places."""

from typing import Any

import pytest
from pydantic import BaseModel

from services.scheduler.admin.schemas import AccountAnswer, KeyAnswer, KeyCreated
from services.scheduler.datasets.schemas import DatasetAnswer
from services.scheduler.events.schemas import EventAnswer, Losses, SampleAnswer
from services.scheduler.schemas import Progress, Queue, TuneAnswer
from services.scheduler.webhooks.schemas import Delivery
from services.scheduler.whatif.service import WhatIf
from services.upload.schemas import AssetOut
from tunesmith import models

PAIRS = [
    (models.Asset, AssetOut),
    (models.Progress, Progress),
    (models.Queue, Queue),
    (models.TuneFields, TuneAnswer),
    (models.Losses, Losses),
    (models.Sample, SampleAnswer),
    (models.WhatIf, WhatIf),
    (models.Dataset, DatasetAnswer),
    (models.Delivery, Delivery),
    (models.Account, AccountAnswer),
    (models.Key, KeyCreated),
]


def _kinds(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """Return the JSON types that a value may have."""
    if reference := schema.get("$ref"):
        return _kinds(definitions[reference.rpartition("/")[2]], definitions)
    if options := schema.get("anyOf"):
        return set().union(*(_kinds(option, definitions) for option in options))
    return {schema.get("type", "any")}


def _fields(model: type[BaseModel]) -> dict[str, set[str]]:
    schema = model.model_json_schema(mode="serialization")
    return {name: _kinds(field, schema.get("$defs", {})) for name, field in schema["properties"].items()}


@pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=lambda model: model.__name__)
def test_a_models_fields_are_the_servers(mine: type[BaseModel], theirs: type[BaseModel]) -> None:
    server = _fields(theirs)
    differ = {
        name: (kinds, server.get(name, "not a field of the server"))
        for name, kinds in _fields(mine).items()
        # A newer client may find a field missing in the answer of an older server, so its own default may be null.
        if name not in server or (kinds != server[name] and kinds - {"null"} != server[name])
    }

    assert differ == {}


def test_an_events_fields_are_the_servers() -> None:
    assert set(models.TuneEvent.__annotations__) == set(EventAnswer.model_fields)


def test_a_listed_key_has_no_secret() -> None:
    assert set(KeyAnswer.model_fields) == set(KeyCreated.model_fields) - {"secret"}
