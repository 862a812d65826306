"""What the tests of the guide share: its images and captions, and what an SDK returned at each step of its flow."""

import json
import time
from dataclasses import dataclass
from typing import Any

from tests.sdks.curl import Curl
from tests.sdks.driver import Driver
from tests.sdks.environments import Sdk
from tunesmith import demo

CAPTIONS: dict[str, str] = json.loads((demo.SAMPLES / "captions.json").read_text())


@dataclass
class Flow:
    """What an SDK returned at each step of the guide's flow."""

    name: str
    engine: str
    base: str
    uploaded: list[dict[str, Any]]
    started: dict[str, Any]
    ended: dict[str, Any]


def engine_of(sdk: Sdk) -> str:
    """Return the engine that the SDK draws with. The newest SDKs have no Stable Diffusion 1.5; octoai 1.10 has only its name."""
    newest = sdk.package in {"octoai", "@octoai/sdk"} and sdk.number >= (1, 10)
    return "sdxl" if newest else "sd"


def ended(tuning: Driver | Curl, tune_id: str) -> dict[str, Any]:
    """Poll a tune to its end, within the test's own time limit."""
    while (now := tuning.do("tune", tune_id=tune_id))["status"] not in {"succeeded", "failed", "cancelled"}:
        time.sleep(0.5)
    return now
