"""While the database is unavailable every service answers 503: each SDK raises its own exception, or retries."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from deploy.local.paths import StackPaths
from tests.sdks.curl import Curl
from tests.sdks.driver import Driver
from tests.sdks.environments import NPM_CLIENT, NPM_SDK, OCTOAI
from tests.sdks.guide import engine_of
from tests.sdks.refusals import refused
from tests.support.running_stack import RunningStack
from tests.support.waiting import until
from tunesmith import demo

pytestmark = pytest.mark.timeout(300)
SAYS = "a part of the platform is unavailable"
RETRY_S = 2
"""The `Retry-After` of that answer."""


def _outlive(sdk: Driver, aside: ThreadPoolExecutor, verb: str, **args: Any) -> Callable[[], Any]:
    """Ask for something during the outage and return, once that was refused, what waits for the answer after it."""
    before = len(sdk.answers)
    asked = aside.submit(sdk.do, verb, **args)
    until(lambda: len(sdk.answers) > before or None, "it is refused")

    def answer() -> Any:
        found = asked.result()
        times, statuses = zip(*sdk.answers[before:], strict=True)
        assert set(statuses[:-1]) == {503}
        if sdk.sdk.package == "octoai":
            assert times[1] - times[0] >= RETRY_S
        return found

    return answer


def test_an_outage(sdk: Driver, tuning: Driver | Curl, stack: StackPaths) -> None:
    """What would create something is refused. For images octoai-sdk retries by itself, and octoai where it is asked to."""
    drawing = {"engine": engine_of(sdk.sdk), "prompt": "a star", "steps": 2, "seed": 7}
    tune = {
        "name": "during-an-outage",
        "base": "octoai:default-sd15",
        "files": {"x": "a star"},
        "trigger_word": "sks1",
        "steps": 1,
    }
    patience = {"request_options": {"max_retries": 20}} if sdk.sdk.package == "octoai" else {}
    with ThreadPoolExecutor(1) as aside:
        with RunningStack(stack).without("postgres"):
            with refused(sdk, 503, says=SAYS):
                sdk.do("upload", path=str(demo.SAMPLES / "star-1.png"), name="during-an-outage")
            with refused(tuning, 503, says=SAYS):
                tuning.do("create_tune", **tune)
            if sdk.sdk.package != "octoai-sdk":
                with refused(sdk, 503, images=True, says=SAYS):
                    sdk.do("generate", **drawing)
            answer = partial(sdk.do, "generate", **drawing)
            if sdk.sdk.is_python:
                answer = _outlive(sdk, aside, "generate", **drawing, **patience)
        assert len(answer()["images"]) == 1


@pytest.mark.long
def test_octoai_sdk_reads_four_times_and_waits_for_retry_after_each_time(sdk: Driver, stack: StackPaths) -> None:
    if sdk.sdk.package != "octoai-sdk":
        assert sdk.sdk in {*OCTOAI, *NPM_CLIENT, *NPM_SDK}
        return
    before = len(sdk.answers)
    with RunningStack(stack).without("postgres"), refused(sdk, 503, says=SAYS):
        sdk.do("assets")
    times, statuses = zip(*sdk.answers[before:], strict=True)
    assert statuses == (503,) * 4
    assert all(later - earlier >= RETRY_S for earlier, later in pairwise(times))
