"""The original guide's flow with each unmodified SDK: upload images, tune, draw with the LoRA, and delete each of them."""

import base64
from typing import Any

import pytest

from tests.sdks.curl import Curl
from tests.sdks.driver import Driver
from tests.sdks.guide import CAPTIONS, Flow
from tests.sdks.refusals import refused
from tunesmith import demo

pytestmark = pytest.mark.timeout(600)
_JPEG = b"\xff\xd8\xff"


def _generate(sdk: Driver, flow: Flow, **options: Any) -> Any:
    asked = {"prompt": "a photo of a sks1 star in the snow", "steps": 2, "cfg_scale": 5.0, "seed": 7} | options
    return sdk.do("generate", engine=flow.engine, **asked)


def test_images_are_uploaded(flow: Flow) -> None:
    assert [(asset["asset_type"], asset["status"], asset["description"]) for asset in flow.uploaded] == [
        ("file", "uploaded", file) for file in CAPTIONS
    ]


def test_a_tune_starts_while_its_images_are_still_being_checked(flow: Flow) -> None:
    assert flow.started["status"] == "pending"
    assert flow.started["output_lora_ids"] == []
    assert flow.started["details"]["trigger_words"] == ["sks1"]
    assert [file["caption"] for file in flow.started["details"]["files"]] == list(CAPTIONS.values())


def test_the_tune_succeeds_and_names_its_lora(flow: Flow) -> None:
    assert (flow.ended["status"], len(flow.ended["output_lora_ids"])) == ("succeeded", 1), flow.ended["status_details"]
    assert flow.ended["details"]["base_checkpoint"]["checkpoint_id"] == flow.base


def test_its_lora_is_in_the_library_under_the_tunes_name(sdk: Driver, flow: Flow) -> None:
    lora = sdk.do("asset", key=flow.name)

    assert [lora["id"]] == flow.ended["output_lora_ids"]
    assert (lora["asset_type"], lora["status"]) == ("lora", "ready")
    assert lora["data"]["trigger_words"] == ["sks1"]


def test_the_lora_draws_by_its_name(sdk: Driver, flow: Flow) -> None:
    [plain] = _generate(sdk, flow)["images"]
    [tuned] = _generate(sdk, flow, loras={flow.name: 0.9})["images"]

    assert base64.b64decode(tuned).startswith(_JPEG)
    assert tuned != plain


def test_the_tunes_name_is_taken_by_the_tune_and_by_its_lora(tuning: Driver | Curl, sdk: Driver, flow: Flow) -> None:
    files = {flow.uploaded[0]["id"]: "a sks1 star"}
    with refused(tuning, 409):
        tuning.do("create_tune", name=flow.name, base=flow.base, files=files, trigger_word="sks1", steps=4)
    with refused(sdk, 409):
        sdk.do("upload", path=str(demo.SAMPLES / "star-1.png"), name=flow.name)


def test_what_has_ended_cannot_be_cancelled(tuning: Driver | Curl, flow: Flow) -> None:
    with refused(tuning, 409):
        tuning.do("cancel_tune", tune_id=flow.ended["id"])


def test_what_is_deleted_leaves_the_rest_alone(sdk: Driver, tuning: Driver | Curl, flow: Flow) -> None:
    """The end of the flow deletes an image, then the tune, then the LoRA; each time the others stay."""
    image, lora = flow.uploaded[0]["id"], flow.ended["output_lora_ids"][0]

    assert sdk.do("delete_asset", asset_id=image)["id"] == image
    assert tuning.do("tune", tune_id=flow.ended["id"])["status"] == "succeeded"
    tuning.do("delete_tune", tune_id=flow.ended["id"])
    assert tuning.do("tunes", name=flow.name)["data"] == []
    assert sdk.do("asset", key=flow.uploaded[1]["id"])["status"] == "ready"
    assert len(_generate(sdk, flow, loras={flow.name: 0.9})["images"]) == 1
    sdk.do("delete_asset", asset_id=lora)
    assert sdk.do("assets", name=flow.name)["data"] == []
