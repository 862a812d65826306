"""Small requests to a running stack, and their ends."""

import time

import httpx

from tunesmith.client import Asset, Client, Tune

BASE = "octoai:tiny-sd15"
STEPS = 20
_BOUND_S = 300


def start_tune(client: Client, image: Asset, name: str, *, trigger_word: str = "sks1") -> Tune:
    """Start a tune on one image; the trigger word tells a stub child how to behave."""
    files = [(image.id, f"a photo of a {trigger_word} star")]
    return client.create_tune(name, base=BASE, files=files, trigger_word=trigger_word, steps=STEPS, seed=1)


def ended(client: Client, tune: Tune) -> Tune:
    """Wait for a tune to end, and return it."""
    deadline = time.monotonic() + _BOUND_S
    for now in client.watch(tune.id):
        assert time.monotonic() < deadline, f"still {now.status}"
    return now


def draw(client: Client) -> httpx.Response:
    """Ask for an image, and return the answer, errors included."""
    body = {"prompt": "a star", "checkpoint": BASE, "steps": 1, "seed": 3}
    return httpx.post(f"{client.url}/generate/sd", json=body, headers=dict(client._http.headers), timeout=_BOUND_S)


def drawn(client: Client) -> bool | None:
    """Ask for an image; return None unless it was drawn."""
    answer = draw(client)
    return True if answer.is_success and answer.json()["images"][0]["seed"] == 3 else None
