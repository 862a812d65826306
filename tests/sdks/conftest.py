"""The SDKs at work on the run's stack, and each one's run of the guide's flow."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from deploy.local.paths import StackPaths
from tests.sdks.curl import Curl
from tests.sdks.driver import Driver, driving
from tests.sdks.environments import ALL, ALWAYS
from tests.sdks.guide import CAPTIONS, Flow, ended, engine_of
from tests.support.running_stack import RunningStack
from tunesmith import demo
from tunesmith.client import Client

WithKey = Callable[[str], AbstractContextManager[Driver]]
_VERSIONS = [pytest.param(sdk, marks=[] if sdk in ALWAYS else pytest.mark.long) for sdk in ALL]


@pytest.fixture(scope="session", params=_VERSIONS, ids=str)
def sdk(request: pytest.FixtureRequest, stack: StackPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """An SDK with the stack's own key."""
    server, home = request.getfixturevalue("client").url, tmp_path_factory.mktemp("home")
    with driving(request.param, server, (stack.secrets / "api_key").read_text(), home) as driver:
        yield driver


@pytest.fixture(scope="session")
def curl(client: Client, stack: StackPaths) -> Curl:
    """The guide's own commands."""
    return Curl(client.url, (stack.secrets / "api_key").read_text())


@pytest.fixture(scope="session")
def tuning(sdk: Driver, curl: Curl) -> Driver | Curl:
    """What creates tunes: the SDK where it can, else the guide's curl commands, as users of octoai-sdk did before 0.8."""
    old = sdk.sdk.package == "octoai-sdk" and sdk.sdk.number < (0, 8)
    assert ("create_tune" in sdk.offers) != old
    return curl if old else sdk


@pytest.fixture
def with_key(sdk: Driver, client: Client, tmp_path: Path) -> WithKey:
    """Return a function that runs the SDK with another key."""
    return lambda key: driving(sdk.sdk, client.url, key, tmp_path)


@pytest.fixture(scope="session")
def narrow_key(stack: StackPaths) -> str:
    """A key with the scope `tunes` alone."""
    return _new_key(stack, "narrow", "tunes")


@pytest.fixture(scope="session")
def operator(client: Client, stack: StackPaths) -> Iterator[httpx.Client]:
    """The admin API with an operator's key."""
    headers = {"Authorization": f"Bearer {_new_key(stack, 'operator', 'admin')}"}
    with httpx.Client(base_url=f"{client.url}/v1/admin", headers=headers, timeout=60) as operator:
        yield operator


@pytest.fixture
def limited(operator: httpx.Client, with_key: WithKey) -> Callable[..., AbstractContextManager[Driver]]:
    """Return a function that runs the SDK for a new account with these limits."""

    def make(**limits: int) -> AbstractContextManager[Driver]:
        body = {"name": f"limited-{uuid4().hex}", "limits": limits}
        account = operator.post("/accounts", json=body).raise_for_status().json()["id"]
        key = operator.post(f"/accounts/{account}/keys", json={"name": "limited"}).raise_for_status().json()["secret"]
        return with_key(key)

    return make


def _new_key(stack: StackPaths, name: str, scope: str) -> str:
    command = Path(sys.executable).parent / "tunesmith"
    create = [command, "keys", "create", name, "--scope", scope, "--data-dir", stack.data_dir]
    return subprocess.run(create, check=True, capture_output=True, text=True, timeout=120).stdout.split()[-1]


@pytest.fixture(scope="session")
def flow(sdk: Driver, tuning: Driver | Curl, stack: StackPaths, client: Client) -> Flow:
    """Upload five images, start a tune with captions and a trigger word before intake has checked them, and poll to its end."""
    name = _unused(client, str(sdk.sdk).replace(".", "-"))
    engine = engine_of(sdk.sdk)
    base = client.asset("octoai:default-sd15" if engine == "sd" else "octoai:default-sdxl").id
    # Intake hears of uploads through the broker: while that is suspended uploads are accepted, and their verdicts wait.
    with RunningStack(stack).stopped("kafka"):
        uploaded = [
            sdk.do("upload", path=str(demo.SAMPLES / file), name=f"{name}-{Path(file).stem}", description=file)
            for file in CAPTIONS
        ]
        files = {asset["id"]: caption for asset, caption in zip(uploaded, CAPTIONS.values(), strict=True)}
        started = tuning.do("create_tune", name=name, base=base, files=files, trigger_word="sks1", steps=4)
    return Flow(name, engine, base, uploaded, started, ended(tuning, started["id"]))


def _unused(client: Client, stem: str) -> str:
    """Return a name that is free on a stack that earlier runs have used."""
    number = len(client.tunes())
    return f"{stem}-{number}"
