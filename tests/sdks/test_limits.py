"""A limit that an account has reached raises the SDK's own exception, or is waited for where the SDK waits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from deploy.local.paths import StackPaths
from tests.sdks.driver import Driver, SdkError
from tests.sdks.guide import engine_of
from tests.sdks.refusals import refused
from tests.support.running_stack import RunningStack
from tests.support.waiting import until
from tunesmith import demo

pytestmark = pytest.mark.timeout(300)
Limited = Callable[..., AbstractContextManager[Driver]]
STAR = str(demo.SAMPLES / "star-1.png")
UNKNOWN = "asset_01hf3a2qw7ek6vshbhd9c9yywd"
ENOUGH = 4
"""More requests than a limit of one lets through, even across the end of a minute."""
_TUNE: dict[str, Any] = {
    "name": "one-too-many",
    "base": "octoai:default-sd15",
    "files": {UNKNOWN: "a sks1 star"},
    "trigger_word": "sks1",
    "steps": 1,
}
IMAGES_RETRY_S = 5
"""The `Retry-After` of a request for too many images at a time."""


def _drawing(sdk: Driver, **options: Any) -> dict[str, Any]:
    return {"engine": engine_of(sdk.sdk), "prompt": "a star", "steps": 2, "seed": 7} | options


def test_more_requests_than_an_account_may_send(limited: Limited) -> None:
    """Each service counts its own requests, and may let one more through where one minute ends and the next begins."""

    def create_tunes() -> None:
        for _ in range(ENOUGH):
            try:
                sdk.do("create_tune", **_TUNE)
            except SdkError as error:
                if UNKNOWN not in error.text:
                    raise

    with limited(max_requests_per_minute=1) as sdk:
        # The first request is answered; the one that completes the upload is one too many.
        with refused(sdk, 429, says="max_requests_per_minute"):
            for number in range(ENOUGH):
                sdk.do("upload", path=STAR, name=f"half-way-{number}")
        if "create_tune" in sdk.offers:
            with refused(sdk, 429, says="max_requests_per_minute"):
                create_tunes()
        if "start" in sdk.offers:
            # No SDK retries the request that asks whether images are ready.
            future = sdk.do("start", **_drawing(sdk))
            with refused(sdk, 429, inferring=True, says="max_requests_per_minute"):
                for _ in range(ENOUGH):
                    sdk.do("is_ready", future=future)


def test_more_than_an_account_may_have(limited: Limited) -> None:
    with limited(max_unfinished_tunes=0, max_stored_bytes=40_000) as sdk:
        image = sdk.do("upload", path=STAR, name="fits")
        with refused(sdk, 429, says="max_stored_bytes"):
            sdk.do("upload", path=STAR, name="does-not-fit")
        if "create_tune" in sdk.offers:
            with refused(sdk, 429, says="max_unfinished_tunes"):
                sdk.do("create_tune", **_TUNE | {"files": {image["id"]: "a sks1 star"}})


def test_more_images_than_an_account_may_ask_for_at_a_time(limited: Limited, stack: StackPaths) -> None:
    """octoai-sdk retries by itself, octoai where it is asked to and after `Retry-After`; the SDKs of npm do not wait."""
    with limited(max_images_in_flight=1) as sdk:
        if not sdk.sdk.is_python:
            with refused(sdk, 429, images=True, says="max_images_in_flight"):
                sdk.do("generate", **_drawing(sdk, num_images=2))
            return
        patience = {"request_options": {"max_retries": 3}} if sdk.sdk.package == "octoai" else {}
        with ThreadPoolExecutor(1) as aside, RunningStack(stack).stopped("inference-worker"):
            first = sdk.do("start", **_drawing(sdk))
            asked = aside.submit(sdk.do, "generate", **_drawing(sdk), **patience)
            refusal, _ = until(lambda: next((answer for answer in sdk.answers if answer[1] == 429), None), "it is refused")
        made = asked.result()
        assert len(made["images"]) == 1
        assert sdk.do("fetch", future=first)["images"] == made["images"]
        if sdk.sdk.package == "octoai":
            again = next(at for at, _ in sdk.answers if at > refusal)
            assert again - refusal >= IMAGES_RETRY_S
