"""The services' API descriptions are merged into one."""

from services.console.openapi import merge

OWN = {"openapi": "3.1.0", "info": {"title": "Tunesmith"}, "paths": {"/health": {"get": {"summary": "own"}}}}


def _document(path: str, schema: dict[str, str]) -> dict[str, object]:
    operation = {"get": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    return {
        "paths": {path: operation, "/health": {"get": {"summary": "theirs"}}},
        "components": {"schemas": {"Thing": schema}, "securitySchemes": {"HTTPBearer": {"type": "http"}}},
    }


def test_the_paths_of_every_service_are_in_the_merged_document() -> None:
    merged = merge(OWN, {"upload": _document("/v1/assets", {}), "scheduler": _document("/v1/tunes", {})})

    assert set(merged["paths"]) == {"/health", "/v1/assets", "/v1/tunes"}


def test_the_probes_of_other_processes_are_left_out() -> None:
    assert merge(OWN, {"upload": _document("/v1/assets", {})})["paths"]["/health"]["get"]["summary"] == "own"


def test_a_schema_that_two_services_define_differently_is_renamed_in_the_second() -> None:
    merged = merge(OWN, {"upload": _document("/v1/assets", {"title": "a"}), "scheduler": _document("/v1/tunes", {"title": "b"})})

    assert set(merged["components"]["schemas"]) == {"Thing", "SchedulerThing"}
    assert merged["paths"]["/v1/tunes"]["get"]["schema"]["$ref"] == "#/components/schemas/SchedulerThing"
    assert merged["paths"]["/v1/assets"]["get"]["schema"]["$ref"] == "#/components/schemas/Thing"


def test_a_schema_that_two_services_define_alike_is_kept_once() -> None:
    same = merge(OWN, {"upload": _document("/v1/assets", {}), "scheduler": _document("/v1/tunes", {})})

    assert set(same["components"]["schemas"]) == {"Thing"}
