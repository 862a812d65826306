"""Drain fits the grace period (promise 20): a process that is told to stop under load ends in time and loses nothing."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.local.process import Process
from tests.support.stub_stack import StubStack
from tests.support.tunes import drawn, ended, start_tune
from tests.support.waiting import until
from tunesmith.client import Asset, Client

pytestmark = pytest.mark.timeout(900)
GRACE_S = Process.__dataclass_fields__["grace_s"].default
SERVICES = ("upload", "scheduler", "trainer", "inference-worker", "inference", "console")


def test_every_service_that_is_told_to_stop_under_load_ends_well_in_time(stack: StubStack, client: Client, image: Asset) -> None:
    tune = start_tune(client, image, "drained", trigger_word="pause@7")
    until(lambda: client.tune(tune.id).progress or None, "it trains")
    until(lambda: drawn(client), "the API and a worker hear the broker")
    log = stack.paths.logs / "supervisor.log"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.generate, "hold this star", checkpoint="octoai:tiny-sd15", seed=3, steps=1)

        def is_running() -> bool | None:
            assert not asked.done(), asked.result()
            return stack.scalar("SELECT count(*) FROM generations WHERE state = 'running'") > 0 or None

        until(is_running, "a worker has it")
        for name in SERVICES:
            before, said = stack.state.processes[name], log.read_text().count(f"{name} exited with 0")
            process = stack.process(name)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(GRACE_S)
            assert time.monotonic() - began < GRACE_S
            stack.until_back(name, before)
            assert log.read_text().count(f"{name} exited with 0") == said + 1, f"{name} was killed"
            if name == "inference-worker":
                # The worker gave the request back; its successor draws it before the API is stopped.
                (stack.paths.work / name / "go").touch()
                assert [image.seed for image in asked.result().images] == [3]

    done = ended(client, tune)
    starts = [event["data"]["attempt"] for event in client.tune_events(tune.id) if event["type"] == "tune.started"]
    assert done.status == "succeeded", done.status_details
    assert starts == [1, 1], "being told to stop costs no attempt"
