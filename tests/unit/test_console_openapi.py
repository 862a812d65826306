"""The services' API descriptions become one."""

from services.console.openapi import merge

OWN = {"openapi": "3.1.0", "info": {"title": "Tunesmith"}, "paths": {"/health": {"get": {"summary": "own"}}}}


def _document(path: str, schema: dict[str, str]) -> dict[str, object]:
    operation = {"get": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    return {
        "paths": {path: operation, "/health": {"get": {"summary": "theirs"}}},
        "components": {"schemas": {"Thing": schema}, "securitySchemes": {"HTTPBearer": {"type": "http"}}},
    }


def test_every_services_paths_are_in_it() -> None:
    merged = merge(OWN, {"upload": _document("/v1/assets", {}), "scheduler": _document("/v1/tunes", {})})

    assert set(merged["paths"]) == {"/health", "/v1/assets", "/v1/tunes"}


def test_the_probes_of_the_processes_stay_inside() -> None:
    assert merge(OWN, {"upload": _document("/v1/assets", {})})["paths"]["/health"]["get"]["summary"] == "own"


def test_a_schema_that_two_define_differently_keeps_both_meanings() -> None:
    merged = merge(OWN, {"upload": _document("/v1/assets", {"title": "a"}), "scheduler": _document("/v1/tunes", {"title": "b"})})

    assert set(merged["components"]["schemas"]) == {"Thing", "SchedulerThing"}
    assert merged["paths"]["/v1/tunes"]["get"]["schema"]["$ref"] == "#/components/schemas/SchedulerThing"
    assert merged["paths"]["/v1/assets"]["get"]["schema"]["$ref"] == "#/components/schemas/Thing"


def test_a_schema_that_two_define_alike_is_one() -> None:
    same = merge(OWN, {"upload": _document("/v1/assets", {}), "scheduler": _document("/v1/tunes", {})})

    assert set(same["components"]["schemas"]) == {"Thing"}
