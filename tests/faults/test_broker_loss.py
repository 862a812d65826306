"""A broker that loses all its data, during a tune and during a generation: the database alone rebuilds what is in flight."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.stub_stack import StubStack
from tests.support.tunes import draw, drawn, ended, start_tune
from tests.support.waiting import until
from tunesmith.client import Asset, Client

pytestmark = pytest.mark.timeout(900)

_REACHED_THE_BROKER = """
    SELECT EXISTS (SELECT FROM generations WHERE state = 'queued') AND NOT EXISTS (SELECT FROM outbox_images)
"""


def test_a_tune_outlives_the_brokers_data(stack: StubStack, client: Client, image: Asset) -> None:
    tune = start_tune(client, image, "outlives", trigger_word="hold@7")
    until(lambda: client.tune(tune.id).progress or None, "it trains")

    before = stack.lose_broker_data()
    stack.let_go(tune.id)
    stack.until_back("kafka", before)

    done = ended(client, tune)
    kinds = [event["type"] for event in client.tune_events(tune.id)]
    assert done.status == "succeeded", done.status_details
    assert client.asset("outlives").status == "ready"
    assert kinds.count("tune.started") == 1, "its trainer went on undisturbed"
    assert (kinds.count("tune.trained"), kinds.count("tune.succeeded")) == (1, 1)


def test_a_generation_outlives_the_brokers_data(stack: StubStack, client: Client) -> None:
    assert until(lambda: drawn(client), "the API and a worker hear the broker")
    worker = stack.process("inference-worker")
    worker.suspend()
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(draw, client)
            # The suspended worker still holds its group's partitions, so the request lies in the broker when that loses its data.
            until(lambda: stack.scalar(_REACHED_THE_BROKER) or None, "the request has reached the broker")
            before = stack.lose_broker_data()
            worker.resume()
            stack.until_back("kafka", before)
            answer = asked.result()
    finally:
        worker.resume()

    assert answer.is_success, answer.text
    assert [image["seed"] for image in answer.json()["images"]] == [3]


def test_images_are_refused_while_the_broker_is_unavailable_and_drawn_again_after(stack: StubStack, client: Client) -> None:
    assert until(lambda: drawn(client), "the API and a worker hear the broker")

    with stack.without("kafka"):
        refused = until(lambda: found if (found := draw(client)).status_code == 503 else None, "a refusal")

    assert int(refused.headers["Retry-After"]) >= 1
    assert "the broker is unavailable" in refused.json()["detail"]
    assert until(lambda: drawn(client), "an image is drawn again")
