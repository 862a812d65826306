"""The main job on the real stack: upload, tune, generate, and get what was asked for."""

import json
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from deploy.local import state
from deploy.local.paths import PROJECT, StackPaths
from tests.support import likenesses
from tunesmith import demo
from tunesmith.client import Client, TunesmithApiError

pytestmark = pytest.mark.timeout(900)
LEAST_FALL = 0.15
"""By how much the loss on unseen images of the subject must fall for the trigger prompt; 0.29 was measured."""
MOST_RISE = 0.15
"""By how much the loss on images of other things of the class may rise for the class's own prompt."""
LEAST_GAIN, LEAST_PART = 0.12, 0.9
"""By how much the tuned images must be more like the subject in the mean, and the least share of all pairs of a tuned and an untuned
image in which the tuned one must be. 0.15 and 1.0 were measured; the subject's own images are 0.26 above untuned ones."""


@pytest.fixture(scope="module")
def tuned(stack: StackPaths, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a LoRA that the demo has made."""
    running = state.read(stack)
    assert running is not None
    with Client(running.url, (stack.secrets / "api_key").read_text()) as client:
        sheet = demo.run(client, tmp_path_factory.mktemp("demo"), Console(quiet=True))
    assert sheet.stat().st_size > 100_000
    return sheet.stem


def test_the_lora_is_in_the_library_under_the_tunes_name(client: Client, tuned: str) -> None:
    [tune] = client.tunes(name=tuned)
    lora = client.asset(tuned)

    assert (tune.status, tune.output_lora_ids) == ("succeeded", [lora.id])
    assert (lora.asset_type, lora.status, lora.data["trigger_words"]) == ("lora", "ready", ["sks1"])
    assert lora.data["base_sha256"]


def test_the_events_tell_the_tune_from_start_to_end_without_a_gap(client: Client, tuned: str) -> None:
    [tune] = client.tunes(name=tuned)
    events = client.tune_events(tune.id)

    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[1], kinds[-2], kinds[-1]) == ("tune.queued", "tune.started", "tune.trained", "tune.succeeded")
    assert "tune.progressed" in kinds


def _draw(client: Client, loras: dict[str, float] | None = None, **options: object) -> bytes:
    made = client.generate(
        "a photo of a sks1 star in the snow",
        checkpoint=demo.BASE,
        seed=5,
        steps=8,
        image_encoding="png",
        **({"loras": loras} if loras else {}),
        **options,
    )
    return made.images[0].data


def test_weight_zero_is_the_base_bit_by_bit_and_weight_one_is_not(client: Client, tuned: str) -> None:
    base, zero, one = _draw(client), _draw(client, {tuned: 0.0}), _draw(client, {tuned: 1.0})

    assert base == zero
    assert base != one
    assert _draw(client) == base


def test_an_image_of_several_can_be_had_alone(client: Client, tuned: str) -> None:
    options = {"checkpoint": demo.BASE, "steps": 4, "image_encoding": "png", "loras": {tuned: 1.0}}
    several = client.generate("a sks1 star", seed=7, num_images=3, **options).images

    assert [image.seed for image in several] == [7, 8, 9]
    alone = client.generate("a sks1 star", seed=9, **options).images[0]
    # Images are drawn in batches, whose sums round differently (docs/decisions/0014-images-in-batches.md).
    assert likenesses.levels_apart(alone.data, several[2].data) <= 2
    assert likenesses.levels_apart(alone.data, several[1].data) > 20


def test_a_name_that_is_in_use_is_a_conflict_that_names_it(client: Client, tuned: str) -> None:
    with pytest.raises(TunesmithApiError, match=re.escape(tuned)) as refused:
        client.create_tune(
            tuned, base=demo.BASE, files=[(client.assets(asset_type="file")[0].id, None)], trigger_word="x", steps=1
        )

    assert refused.value.status == 409


def test_an_unknown_lora_is_named(client: Client) -> None:
    with pytest.raises(TunesmithApiError, match="no-such-lora") as refused:
        client.generate("a star", loras={"no-such-lora": 1.0})

    assert refused.value.status == 422


def test_the_pages_for_users_answer(client: Client) -> None:
    for path in ("/", "/docs", "/openapi.json"):
        assert httpx.get(client.url + path, timeout=10).status_code == 200
    assert httpx.get(client.url + "/metrics", timeout=10).status_code == 404
    assert set(httpx.get(client.url + "/openapi.json", timeout=10).json()["paths"]) >= {
        "/v1/assets",
        "/v1/tune",
        "/generate/{engine}",
    }


def test_the_subject_was_learnt_and_its_class_was_kept(client: Client, tuned: str, tmp_path: Path) -> None:
    from tests.support.subject_loss import losses  # noqa: PLC0415 - imports torch and diffusers, 20 s

    answer = httpx.get(f"{client.url}/v1/assets/{tuned}", headers=dict(client._http.headers), timeout=30).json()
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(httpx.get(answer["transfer_api"]["get_url"], timeout=60).content)

    measured = losses(PROJECT / "deploy" / "checkpoints" / "tiny-sd15", lora)

    print(json.dumps(measured))
    assert measured["subject_tuned"] <= measured["subject_base"] * (1 - LEAST_FALL)
    assert measured["class_tuned"] <= measured["class_base"] * (1 + MOST_RISE)


def test_the_tuned_images_show_the_subject_and_the_untuned_ones_do_not(client: Client, tuned: str) -> None:
    def draw(prompt: str, seed: int, loras: dict[str, float] | None = None) -> list[bytes]:
        options = {"checkpoint": demo.BASE, "steps": 20, "cfg_scale": 5.0, "num_images": 2, "image_encoding": "png"}
        return [image.data for image in client.generate(prompt, seed=seed, loras=loras, **options).images]

    measured = likenesses.measure(draw, partial(draw, loras={tuned: 1.0}), demo.TRIGGER_WORD)

    print(measured)
    assert measured.gain >= LEAST_GAIN
    assert measured.part >= LEAST_PART


def test_a_tune_whose_trainer_is_killed_goes_on_from_its_last_checkpoint(client: Client, stack: StackPaths) -> None:
    captions: dict[str, str] = json.loads((demo.SAMPLES / "captions.json").read_text())
    files = [(client.upload(demo.SAMPLES / name, name=f"killed-{Path(name).stem}").id, text) for name, text in captions.items()]
    tune = client.create_tune(
        "killed",
        base=demo.BASE,
        files=files,
        trigger_word="sks1",
        steps=60,
        seed=1,
        rank=4,
        batch_size=2,
        checkpoint_every_steps=10,
    )
    killed = False
    deadline = time.monotonic() + 600
    for now in client.watch(tune.id):
        assert time.monotonic() < deadline, f"still {now.status} at {now.progress}"
        if not killed and any(event["type"] == "tune.checkpointed" for event in client.tune_events(tune.id)):
            running = state.read(stack)
            assert running is not None
            pid = running.processes["trainer"].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed = True
    events = client.tune_events(tune.id)
    starts = [event["data"] for event in events if event["type"] == "tune.started"]

    assert killed
    assert now.status == "succeeded"
    assert [start["attempt"] for start in starts] == [1, 2]
    assert starts[1]["step"] >= 10
    assert [event["data"]["reason"] for event in events if event["type"] == "tune.requeued"] == ["lease_expired"]
