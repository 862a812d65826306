"""Each refusal reaches each SDK's user as the SDK's own exception."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.sdks.curl import Curl
from tests.sdks.driver import Driver
from tests.sdks.guide import engine_of
from tests.sdks.refusals import refused
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(300)
STAR = str(demo.SAMPLES / "star-1.png")
UNKNOWN = "01hf3a2qw7ek6vshbhd9c9yywd"


@pytest.fixture(scope="session")
def image(sdk: Driver, client: Client) -> dict[str, Any]:
    """An image in the library that the SDK has uploaded."""
    name = f"errors-{str(sdk.sdk).replace('.', '-')}-{len(client.assets())}"
    return sdk.do("upload", path=STAR, name=name)


def _tune(image: dict[str, Any], **changed: Any) -> dict[str, Any]:
    base = "octoai:default-sd15"
    return {
        "name": image["name"],
        "base": base,
        "files": {image["id"]: "a sks1 star"},
        "trigger_word": "sks1",
        "steps": 1,
    } | changed


def test_what_does_not_exist(sdk: Driver, tuning: Driver | Curl) -> None:
    with refused(sdk, 404):
        sdk.do("asset", key=f"asset_{UNKNOWN}")
    with refused(sdk, 404):
        sdk.do("delete_asset", asset_id=f"asset_{UNKNOWN}")
    with refused(tuning, 404):
        tuning.do("tune", tune_id=f"tune_{UNKNOWN}")


def test_a_name_that_is_taken(sdk: Driver, tuning: Driver | Curl, image: dict[str, Any]) -> None:
    with refused(sdk, 409):
        sdk.do("upload", path=STAR, name=image["name"])
    with refused(tuning, 409):
        tuning.do("create_tune", **_tune(image))


def test_fields_that_are_wrong(sdk: Driver, tuning: Driver | Curl, image: dict[str, Any]) -> None:
    with refused(sdk, 422):
        sdk.do("upload", path=STAR, name="too-long-a-description", description="x" * 10_001)
    with refused(tuning, 422):
        tuning.do("create_tune", **_tune(image, name="unknown-file", files={f"asset_{UNKNOWN}": "a sks1 star"}))
    with refused(sdk, 422, images=True):
        sdk.do("generate", engine=engine_of(sdk.sdk), prompt="a star", loras={"no-such-lora": 1.0})


def test_a_key_that_is_unknown(sdk: Driver, with_key: Callable[..., Any]) -> None:
    with with_key("not-a-key") as stranger:
        with refused(stranger, 401):
            stranger.do("assets")
        with refused(stranger, 401, images=True):
            stranger.do("generate", engine=engine_of(sdk.sdk), prompt="a star")
        if "tunes" in stranger.offers:
            with refused(stranger, 401):
                stranger.do("tunes")


def test_a_key_without_the_scope(sdk: Driver, with_key: Callable[..., Any], narrow_key: str) -> None:
    with with_key(narrow_key) as narrow:
        with refused(narrow, 403):
            narrow.do("assets")
        with refused(narrow, 403, images=True):
            narrow.do("generate", engine=engine_of(sdk.sdk), prompt="a star")


def test_what_is_not_served(sdk: Driver) -> None:
    """Before 0.7.3 octoai-sdk itself refuses engines that are not served; octoai 1.0 is older than SD 3."""
    old = sdk.sdk.package == "octoai-sdk" or (sdk.sdk.package == "octoai" and sdk.sdk.number < (1, 2))
    engine = "ssd" if old else "sd3"
    if sdk.sdk.package == "octoai-sdk" and sdk.sdk.number < (0, 7, 3):
        with pytest.raises(Exception, match="engine"):
            sdk.do("generate", engine=engine, prompt="a star")
        return
    with refused(sdk, 400, images=True):
        sdk.do("generate", engine=engine, prompt="a star")
