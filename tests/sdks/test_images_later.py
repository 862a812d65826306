"""Images asked for with `X-OctoAI-Async: 1`, by the SDKs that know it: all but @octoai/sdk."""

import pytest

from deploy.local.paths import StackPaths
from tests.sdks.driver import Driver
from tests.sdks.guide import engine_of
from tests.sdks.refusals import refused
from tests.support.running_stack import RunningStack
from tests.support.waiting import until
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(300)


def test_images_are_asked_for_now_and_fetched_later(sdk: Driver, client: Client, stack: StackPaths) -> None:
    drawing = {"engine": engine_of(sdk.sdk), "prompt": "a star", "steps": 2, "num_images": 2, "seed": 7}
    if "start" not in sdk.offers:
        assert sdk.sdk.package == "@octoai/sdk"
        return
    with RunningStack(stack).stopped("inference-worker"):
        future = sdk.do("start", **drawing)
        assert future == {"response_id": future["response_id"], "poll_url": future["poll_url"]}
        assert future["poll_url"].startswith(client.url)
        assert sdk.do("is_ready", future=future) is False

    until(lambda: sdk.do("is_ready", future=future) or None, "the images are there")
    made = sdk.do("fetch", future=future)
    assert made["seeds"] == [7, 8]
    assert made["images"] == sdk.do("generate", **drawing)["images"]


def test_a_request_that_is_wrong_is_refused_at_once(sdk: Driver, client: Client) -> None:
    if "start" not in sdk.offers:
        assert sdk.sdk.package == "@octoai/sdk"
        return
    with refused(sdk, 422, inferring=True):
        sdk.do("start", engine=engine_of(sdk.sdk), prompt="a star", loras={"no-such-lora": 1.0})
    with refused(sdk, 404, inferring=True):
        sdk.do("is_ready", future={"response_id": "gen_x", "poll_url": f"{client.url}/generate/responses/gen_x"})
