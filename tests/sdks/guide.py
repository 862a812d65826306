"""What the tests of the guide share: its pictures and captions, and what an SDK saw on its way."""

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
    """What an SDK saw on its way through the guide: each field is what the SDK gave at that point."""

    name: str
    engine: str
    base: str
    uploaded: list[dict[str, Any]]
    started: dict[str, Any]
    ended: dict[str, Any]


def engine_of(sdk: Sdk) -> str:
    """Return what the SDK draws with: the newest ones have no Stable Diffusion 1.5 any more, octoai 1.10 only its name."""
    newest = sdk.package in {"octoai", "@octoai/sdk"} and sdk.number >= (1, 10)
    return "sdxl" if newest else "sd"


def ended(tuning: Driver | Curl, tune_id: str) -> dict[str, Any]:
    """Poll a tune to its end; how long that may take is the test's own limit."""
    while (now := tuning.do("tune", tune_id=tune_id))["status"] not in {"succeeded", "failed", "cancelled"}:
        time.sleep(0.5)
    return now
