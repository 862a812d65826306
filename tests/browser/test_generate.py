"""Generate, with given answers: what is sent, what is shown while it is drawn, and what a reload keeps."""

import base64
import io
import re

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser import accessibility
from tests.browser.conftest import Watched
from tests.browser.stub_images import StubImages
from tests.browser.stubs import Failed, StubApi, painted

pytestmark = pytest.mark.timeout(900)
PROMPT = "a photo of a sks1 dog"


@pytest.fixture
def drawn(stubbed: tuple[Watched, StubApi]) -> tuple[Page, str, StubImages]:
    watched, api = stubbed
    return watched.page, watched.url, StubImages(api)


def test_an_image_from_a_prompt(drawn: tuple[Page, str, StubImages]) -> None:
    page, url, images = drawn
    page.goto(f"{url}/images?lora=asset_dog-sks1&prompt={PROMPT}")
    expect(page.get_by_role("heading", name="Describe an image")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    expect(page.get_by_label("Weight of dog-sks1", exact=True)).to_have_value("1")
    expect(page).to_have_url(f"{url}/images")
    # A prompt without the trigger word is told, and can be completed.
    page.get_by_label("Prompt", exact=True).fill("a dog")
    page.get_by_role("button", name="Insert").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a dog, sks1")
    page.get_by_label("Weight of dog-sks1", exact=True).fill("0.7")
    # A LoRA of another engine is shown with the reason, and cannot be chosen.
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("button", name=re.compile("large"))).to_be_disabled()
    page.get_by_role("button", name="watercolour").click()
    page.get_by_role("checkbox", name="watercolour").uncheck()
    page.get_by_label("Prompt", exact=True).press("Control+Enter")

    expect(page.get_by_text("step 12 of 25").first).to_be_visible()
    [asked] = images.api.sent("POST", "/v1/generations")
    assert asked.body == {
        "engine": "sd",
        "request": {
            "prompt": "a dog, sks1", "loras": {"dog-sks1": 0.7}, "width": 512, "height": 512,
            "steps": 25, "cfg_scale": 7, "sampler": "DPM_PLUS_PLUS_2M_KARRAS", "num_images": 1, "image_encoding": "png",
        },
    }  # fmt: skip

    # A reload while it is drawn loses neither the form nor the image.
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a dog, sks1")
    expect(page.get_by_role("checkbox", name="watercolour")).not_to_be_checked()
    expect(page.get_by_text("step 12 of 25").first).to_be_visible()
    images.draw()
    expect(page.get_by_role("img", name="a dog, sks1").first).to_be_visible()
    expect(page.get_by_text("Kept until")).to_be_visible()
    expect(page.get_by_text("step 12 of 25")).to_have_count(0)


def test_what_is_refused_stands_in_the_form(drawn: tuple[Page, str, StubImages], stubbed: tuple[Watched, StubApi]) -> None:
    page, url, images = drawn
    images.api.on("POST", "/v1/generations", Failed(402, "limit_reached", "max_images_in_flight: 4 are allowed; wait"))
    page.goto(f"{url}/images?prompt=a+dog")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("4 are allowed")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a dog")
    assert stubbed[0].complaints == [f"402 of {url}/v1/generations"]
    stubbed[0].complaints.clear()


def test_a_part_of_an_image_is_painted(drawn: tuple[Page, str, StubImages]) -> None:
    page, url, images = drawn
    page.goto(f"{url}/images?mode=inpaint&prompt=a+hat")
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_disabled()
    page.get_by_test_id("start").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": painted(4, 640, 512)})
    expect(page.get_by_text("640 \u00d7 512")).to_be_visible()
    # By keyboard: a rectangle in numbers, over the upper left quarter.
    page.get_by_text("Rectangle in numbers").click()
    for side, value in {"Left": "0", "Top": "0", "Width": "50", "Height": "50"}.items():
        page.get_by_label(f"{side} (%)").fill(value)
    page.get_by_role("button", name="Add rectangle").click()
    # By mouse: a dot in the lower right corner, which is taken back.
    canvas = page.get_by_label("Mask: paint over the part that is to change")
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": 0.9 * box["width"], "y": 0.9 * box["height"]})
    page.get_by_role("button", name="Undo").click()
    canvas.click(position={"x": 0.1 * box["width"], "y": 0.9 * box["height"]})
    # The image and its mask outlast a reload.
    page.reload()
    expect(page.get_by_text("640 \u00d7 512")).to_be_visible()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("step 12 of 25").first).to_be_visible()

    [asked] = images.api.sent("POST", "/v1/generations")
    request = asked.body["request"]
    mask = Image.open(io.BytesIO(base64.b64decode(request["mask_image"]))).convert("L")
    assert mask.size == (640, 512)
    assert [mask.getpixel(place) for place in [(100, 100), (400, 100), (576, 461), (64, 461)]] == [255, 0, 0, 255]
    assert Image.open(io.BytesIO(base64.b64decode(request["init_image"]))).size == (640, 512)
    assert (request["strength"], request["inpaint_full_res"]) == (0.6, True)


def test_two_images_are_compared(drawn: tuple[Page, str, StubImages]) -> None:
    page, url, images = drawn
    older = images.add({"prompt": "a dog", "seed": 7, "steps": 20}, age_h=2)
    images.add({"prompt": "a dog", "seed": 7, "steps": 30}, age_h=1)
    page.goto(f"{url}/images")
    page.get_by_role("img", name="a dog").nth(1).click()
    dialog = page.get_by_role("dialog", name="Image")
    expect(dialog.get_by_text("1 of 2")).to_be_visible()
    page.keyboard.press("c")
    expect(dialog.get_by_role("row", name="Steps 30 20")).to_be_visible()
    expect(dialog.get_by_role("row")).to_have_count(2)
    # The pair stands in the address.
    page.reload()
    expect(dialog.get_by_role("row", name="Steps 30 20")).to_be_visible()
    dialog.get_by_role("button", name="Side by side").click()
    expect(dialog.get_by_role("img")).to_have_count(2)
    page.keyboard.press("Escape")
    expect(dialog.get_by_role("row")).to_have_count(0)
    page.keyboard.press("s")
    expect(dialog.get_by_role("button", name="Star", exact=True)).to_have_attribute("aria-pressed", "true")
    assert older["starred"]
    page.keyboard.press("u")
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Steps")).to_have_value("20")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("7")


def test_with_and_without_a_lora(drawn: tuple[Page, str, StubImages]) -> None:
    page, url, images = drawn
    images.add({"prompt": PROMPT, "seed": 7, "loras": {"dog-sks1": 0.8}})
    page.goto(f"{url}/images")
    page.get_by_role("button", name="With and without").click()
    expect(page.get_by_text("step 12 of 25").first).to_be_visible()
    [asked] = images.api.sent("POST", "/v1/generations")
    assert asked.body["variants"] == [{"loras": {"dog-sks1": 0}}, {"loras": {"dog-sks1": 0.8}}]
    assert asked.body["request"]["seed"] == 7
    images.draw()
    dialog = page.get_by_role("dialog", name="Image")
    expect(dialog.get_by_role("row", name="LoRAs dog-sks1 0 dog-sks1 0.8")).to_be_visible()


def test_a_deleted_image_can_be_taken_back(drawn: tuple[Page, str, StubImages]) -> None:
    page, url, images = drawn
    images.add({"prompt": "a dog"})
    page.goto(f"{url}/images")
    for undo in (True, False):
        page.get_by_role("button", name="What to do with this request").click()
        page.get_by_role("menuitem", name="Delete").click()
        expect(page.get_by_role("heading", name="Describe an image")).to_be_visible()
        if undo:
            page.get_by_role("button", name="Undo").click()
            expect(page.get_by_role("img", name="a dog").first).to_be_visible()
    expect(page.get_by_text("Image deleted")).to_have_count(0)
    assert images.generations == []
    assert len(images.api.sent("DELETE", ".*")) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(drawn: tuple[Page, str, StubImages], scheme: str, width: int) -> None:
    page, url, images = drawn
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{url}/images")
    expect(page.get_by_role("heading", name="Describe an image")).to_be_visible()
    expect(page.get_by_label("Steps")).to_be_visible()
    assert accessibility.findings(page) == []

    loras = {"dog-sks1": 0.8}
    newest = images.add({"prompt": "a dog", "loras": loras}, notices=["steps: cut"])
    images.add({"prompt": "a cat"}, age_h=30, starred=True)
    page.goto(f"{url}/images?mode=inpaint&lora=asset_dog-sks1")
    page.get_by_test_id("start").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": painted(4)})
    expect(page.get_by_text("512 \u00d7 512").first).to_be_visible()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_label("Search LoRAs")).to_be_focused()
    assert accessibility.findings(page) == []

    page.goto(f"{url}/images?view={newest['id']}:0")
    expect(page.get_by_role("dialog", name="Image").get_by_text("1 of 2")).to_be_visible()
    assert accessibility.findings(page) == []
    page.keyboard.press("c")
    expect(page.get_by_role("button", name="Side by side")).to_be_visible()
    assert accessibility.findings(page) == []
