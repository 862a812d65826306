"""`tunesmith generate`: each image gets a file of its own, and no file is overwritten."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer import Typer
from typer.testing import CliRunner

from tunesmith import generate_command
from tunesmith.client import Client

Generate = Callable[..., list[str]]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generate:
    """Return a function that runs the command and returns the names of the files in its folder."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.read())
        images = [
            {"image_b64": base64.b64encode(f"{asked['prompt']} {asked['cfg_scale']} {n}".encode()).decode(), "seed": seed}
            | {"removed_for_safety": False}
            for n, seed in enumerate([asked["seed"]] * asked["num_images"])
        ]
        return httpx.Response(200, json={"images": images})

    def connect() -> Client:
        client = Client("http://tunesmith.test", "key")
        client._http = httpx.Client(transport=httpx.MockTransport(answer), base_url=client.url)
        return client

    def generate(*arguments: str) -> list[str]:
        app = Typer()
        app.command()(generate_command.generate)
        done = CliRunner().invoke(app, [*arguments, "--seed", "1", "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert all(Path(line).is_file() for line in done.output.splitlines())
        return sorted(path.name for path in tmp_path.iterdir())

    monkeypatch.setattr(generate_command, "connect", connect)
    return generate


def test_the_same_prompt_and_seed_with_other_settings_are_other_files(generate: Generate, tmp_path: Path) -> None:
    generate("A red star!")

    assert generate("A red star!", "--cfg-scale", "9", "--num-images", "2") == [
        "a-red-star-1-2.png",
        "a-red-star-1-3.png",
        "a-red-star-1.png",
    ]
    assert (tmp_path / "a-red-star-1.png").read_text() == "A red star! 5.0 0"


def test_prompts_in_any_script_are_named_after_themselves(generate: Generate) -> None:
    generate("\u8d64\u3044\u661f")
    generate("\u9752\u3044\u5bb6")

    assert generate("!?") == ["image-1.png", "\u8d64\u3044\u661f-1.png", "\u9752\u3044\u5bb6-1.png"]


def test_prompts_that_differ_late_are_other_files(generate: Generate) -> None:
    start = "a very long and detailed description of the scene and then"
    generate(f"{start} a red star")

    assert len(generate(f"{start} a blue house")) == 2
