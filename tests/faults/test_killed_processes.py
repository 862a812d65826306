"""A stack survives kill -9 of any one process: its supervisor starts it again, and what was in flight goes on."""

import pytest

from tests.support.stub_stack import StubStack
from tests.support.tunes import drawn, ended, start_tune
from tests.support.waiting import until
from tunesmith.client import Asset, Client

pytestmark = pytest.mark.timeout(900)


def test_a_tune_outlives_the_death_of_every_process_but_its_trainer(stack: StubStack, client: Client, image: Asset) -> None:
    tune = start_tune(client, image, "outlives-them-all", trigger_word="hold@7")
    until(lambda: client.tune(tune.id).progress or None, "it trains")

    names = [name for name, process in stack.state.processes.items() if process.pid]
    assert {"postgres", "kafka", "store", "edge", "upload", "scheduler", "inference", "console"} < set(names)
    for name in sorted(set(names) - {"trainer"}):
        stack.until_back(name, stack.kill(name))
    stack.let_go(tune.id)

    done = ended(client, tune)
    kinds = [event["type"] for event in client.tune_events(tune.id)]
    assert done.status == "succeeded", done.status_details
    assert (kinds.count("tune.trained"), kinds.count("tune.succeeded")) == (1, 1)
    assert client.asset(tune.name).status == "ready"
    assert until(lambda: drawn(client), "images are drawn")


def test_a_tune_whose_trainer_dies_goes_on_from_its_last_checkpoint(stack: StubStack, client: Client, image: Asset) -> None:
    tune = start_tune(client, image, "outlives-its-trainer", trigger_word="hold@7")

    def events(kind: str) -> list[dict[str, object]]:
        return [event["data"] for event in client.tune_events(tune.id) if event["type"] == kind]

    until(lambda: events("tune.checkpointed") or None, "a checkpoint is stored")
    stack.until_back("trainer", stack.kill("trainer"))

    done = ended(client, tune)
    assert done.status == "succeeded", done.status_details
    assert [(start["attempt"], start["step"]) for start in events("tune.started")] == [(1, 0), (2, 5)]
    assert [again["reason"] for again in events("tune.requeued")] == ["lease_expired"]
