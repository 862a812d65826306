"""The way of somebody who teaches it a subject: the printed link, a folder of images, a tune, its LoRA, and an image."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from deploy.local.paths import PROJECT, StackPaths
from tests.browser.conftest import Watched
from tests.support.shared_run import COMMAND
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(900)
SAMPLES = PROJECT / "client" / "tunesmith" / "samples"
STEPS = 30
TRAINED_MS = 600_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as trainers know it: `10_WORD CLASS`, with a caption beside the first image."""
    inside = tmp_path / "star" / "10_sks1 star"
    inside.mkdir(parents=True)
    for image in SAMPLES.glob("*.png"):
        shutil.copy(image, inside)
    captions = json.loads((SAMPLES / "captions.json").read_text())
    (inside / "star-1.txt").write_text(captions["star-1.png"])
    return tmp_path / "star"


@pytest.fixture
def link(stack: StackPaths) -> str:
    """The link that the command prints."""
    command = [COMMAND, "console", "--no-browser", "--data-dir", stack.data_dir]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_from_the_printed_link_to_an_image(watched: Watched, client: Client, link: str, folder: Path) -> None:
    page, url = watched.page, watched.url
    name = f"walk-{uuid4().hex[:8]}"

    page.goto(f"{url}/tunes/new")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.goto("about:blank")
    page.goto(link)
    expect(page).to_have_url(f"{url}/tunes")

    page.get_by_role("link", name="New tune").first.click()
    page.get_by_test_id("folder").set_input_files(folder)
    expect(page.get_by_label("Trigger word")).to_have_value("sks1")
    expect(page.get_by_label("Class", exact=True)).to_have_value("star")
    expect(page.get_by_role("heading", name="5 images")).to_be_visible()
    expect(page.get_by_label("Caption of star-1.png")).not_to_have_value("")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Steps", exact=True).fill(str(STEPS))
    page.get_by_label("Steps", exact=True).press("Tab")
    expect(page).to_have_url(re.compile("/tunes/new/dataset_"))
    expect(page.get_by_text("being checked")).to_have_count(0)
    expect(page.get_by_text(re.compile("About .* GiB"))).to_be_visible()
    expect(page.get_by_text(re.compile("Saved"))).to_be_visible()

    # A reload loses nothing: the form is on the server.
    page.reload()
    expect(page.get_by_label("Name", exact=True)).to_have_value(name)
    expect(page.get_by_label("Steps", exact=True)).to_have_value(str(STEPS))
    expect(page.get_by_role("heading", name="5 images")).to_be_visible()
    expect(page.get_by_label("Caption of star-1.png")).not_to_have_value("")
    page.get_by_role("button", name="Start tuning").click()

    expect(page).to_have_url(re.compile("/tunes/tune_"))
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("link", name="Download LoRA")).to_be_visible(timeout=TRAINED_MS)
    expect(page.get_by_text(f"{STEPS} / {STEPS}")).to_be_visible()
    expect(page.get_by_role("img", name=f"Step {STEPS}: a photo of a sks1 star on a beach")).to_be_visible()
    page.get_by_text("Show as table").click()
    expect(page.get_by_role("cell", name=str(STEPS), exact=True)).to_be_visible()

    [tune] = client.tunes(name=name)
    assert tune.status == "succeeded"
    assert page.url.endswith(tune.id)
    page.get_by_role("link", name="Library").click()
    expect(page).to_have_url(re.compile("/library"))
    expect(page.get_by_role("heading", name="Library")).to_be_visible()
    expect(page.get_by_text(name, exact=True)).to_be_visible()
    # No script can read the sign-in.
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("Object.keys(localStorage).length") == 0

    page.goto(f"{url}/tunes/{tune.id}")
    _draw(page, name)

    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    page.goto(f"{url}/tunes")
    expect(page).to_have_url(re.compile("/sign-in"))


def _draw(page: Page, name: str) -> None:
    """Draw an image with the LoRA of the tune that is shown, keep it, and take it along."""
    page.get_by_role("main").get_by_role("link", name="Generate").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a photo of a sks1")
    expect(page.get_by_label(f"Weight of {name}", exact=True)).to_have_value("1")
    page.get_by_label("Steps").fill("4")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("a star keeps it longer")).to_be_visible(timeout=TRAINED_MS)
    page.get_by_role("button", name="Star", exact=True).click()
    page.reload()
    expect(page.get_by_text("Starred: it is kept.")).to_be_visible()
    expect(page.get_by_role("img", name="a photo of a sks1").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Image.open(download.value.path()).text["parameters"].startswith("a photo of a sks1")


def test_a_wrong_key_is_refused_in_words(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.url}/sign-in?next=//elsewhere.test/")
    page.get_by_label("API key").fill("tsk_wrong")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    expect(page).to_have_url(re.compile("/sign-in"))
