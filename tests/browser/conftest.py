"""A headless browser on the shared stack. A test fails on whatever the browser complains of."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect, sync_playwright

from deploy.local import state
from deploy.local.paths import StackPaths
from tests.browser import stubs
from tests.browser.stubs import StubApi

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without them it looks up hosts of its maker at every start.
ARGUMENTS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
PATIENCE_MS = 60_000
"""The machine that runs the tests may be busy."""
EXPECTED = {(401, "/console/login"), (409, "/v1/assets"), (409, "/v1/tune"), (429, "/v1/tune")}
STATIC = Path(__file__).parents[2] / "services" / "console" / "static"


@dataclass
class Watched:
    """A page, and what its browser complained of."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note what the browser complains of from now on."""
        self.page.on("console", self.on_console)
        self.page.on("response", self.on_response)
        self.page.on("pageerror", lambda error: self.complaints.append(f"an exception: {error}"))

    def on_console(self, message: ConsoleMessage) -> None:
        # The statuses of answers are judged in `on_response`.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")

    def on_response(self, response: Response) -> None:
        # Nobody is signed in at first, a file that was sent before is found by its name, and advice is asked for again, also about a
        # name that the tune which was just started has taken.
        if response.status >= 400 and (response.status, urlsplit(response.url).path) not in EXPECTED:
            self.complaints.append(f"{response.status} of {response.url}")
        if urlsplit(response.url).scheme.startswith("http") and not response.url.startswith(self.url):
            self.complaints.append(f"a request to another host: {response.url}")


# Of the module: playwright's event loop runs until it is closed, and no other can run in this process meanwhile.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: install it (Debian, Ubuntu: apt install chromium)")
    if not (STATIC / "index.html").exists():
        pytest.fail("the console's pages are not built: run `make install`")
    # Chromium's sandbox refuses to run as root.
    arguments = ["--no-sandbox", *ARGUMENTS] if os.geteuid() == 0 else ARGUMENTS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture(scope="module")
def pages_url() -> Iterator[str]:
    """The built pages without a stack behind them."""
    with stubs.served() as url:
        yield url


@pytest.fixture
def stubbed(pages_url: str, context: BrowserContext) -> Iterator[tuple[Watched, StubApi]]:
    """A page whose API is given answers."""
    watched, api = Watched(context.new_page(), pages_url), StubApi(pages_url)
    watched.watch()
    api.attach(watched.page)
    yield watched, api
    assert watched.complaints == []
    assert api.unknown == []


@pytest.fixture
def watched(stack: StackPaths, context: BrowserContext) -> Iterator[Watched]:
    running = state.read(stack)
    assert running is not None
    watched = Watched(context.new_page(), running.url)
    watched.watch()
    yield watched
    assert watched.complaints == []
