"""`tunesmith generate --grid`: the values of its axes, one image for each cell, and a sheet that shows them."""

import io
import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from tests.support.example_server import ExampleServer
from tunesmith import generate_command, grid


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ExampleServer:
    made = ExampleServer()
    monkeypatch.setattr(generate_command, "connect", made.client)
    return made


def _generate(out: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(generate_command.generate)
    return CliRunner().invoke(app, ["a sks1 dog", "--out", str(out), *arguments])


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("weight=0.4..1.2", [0.4, 0.6, 0.8, 1.0, 1.2]),
        ("steps=10,20,30", [10, 20, 30]),
        ("cfg_scale=3..9 by 2", [3, 5, 7, 9]),
        ("weight=1..0 by -0.5", [1.0, 0.5, 0.0]),
        ("sampler=DDIM,K_EULER", ["DDIM", "K_EULER"]),
        ("weight=0.1..0.3by0.1", [0.1, 0.2, 0.3]),
    ],
)
def test_an_axis_has_these_values(given: str, values: list[object]) -> None:
    [axis] = grid.axes([given])

    assert axis == (given.partition("=")[0], values)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["weight"], "is not FIELD=VALUES"),
        (["weight="], "is not FIELD=VALUES"),
        (["a=1", "b=1", "c=1"], "3 axes are given, and a sheet has two"),
        (["a=1..9 by 1", "b=1..12 by 1"], "it has 108 cells, and the limit is 100"),
        (["a=1..2 by 0"], "has no values"),
        (["a=2..1 by 1"], "has no values"),
        (["a=1..1"], "has no values"),
        (["a=0..1000000000000 by 1"], "values, and the limit is 100"),
    ],
)
def test_a_wrong_axis_is_named(given: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        grid.axes(given)

    assert ended.value.exit_code == 2
    assert says in capsys.readouterr().err


def test_each_cell_is_an_image_of_the_same_seed_and_the_sheet_holds_all(server: ExampleServer, tmp_path: Path) -> None:
    done = _generate(tmp_path, "--lora", "my-dog", "--grid", "weight=0.5,1", "--grid", "steps=5,10", "--json")

    assert done.exit_code == 0, done.output
    asked = [(body["loras"], body["steps"], body.get("seed")) for body in server.generated]
    assert asked == [
        ({"my-dog": 0.5}, 5, None),
        ({"my-dog": 0.5}, 10, 41),
        ({"my-dog": 1}, 5, 41),
        ({"my-dog": 1}, 10, 41),
    ]
    told = json.loads(done.stdout)
    assert [image["label"] for image in told["images"]][:2] == ["weight 0.5, steps 5", "weight 0.5, steps 10"]
    assert all(Path(image["file"]).is_file() for image in told["images"])
    page = Path(told["sheet"]).read_text()
    assert (page.count("<figure>"), page.count("repeat(2,")) == (4, 1)


def test_a_sheet_is_an_image_with_pillow(server: ExampleServer, tmp_path: Path) -> None:
    _generate(tmp_path, "--num-images", "5", "--sheet", str(tmp_path / "all.png"))

    sheet = Image.open(io.BytesIO((tmp_path / "all.png").read_bytes()))
    assert sheet.size == (4 * 264 + 8, 2 * 284 + 8)
    assert sheet.getpixel((40, 40)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sheet", "all.pdf"], "ends with .pdf: give a path that ends with .html, .png or .jpg"),
        (["--grid", "weight=1,2"], "weight needs a LoRA"),
        (["--set", "clip_skip"], "'clip_skip' is not FIELD=VALUE"),
    ],
)
def test_wrong_options_are_refused_before_any_request(
    server: ExampleServer, tmp_path: Path, arguments: list[str], says: str
) -> None:
    refused = _generate(tmp_path, *arguments)

    assert (refused.exit_code, server.generated) == (2, [])
    assert says in refused.output


def test_any_field_of_the_api_can_be_set(server: ExampleServer, tmp_path: Path) -> None:
    (tmp_path / "start.png").write_bytes(b"start")
    done = _generate(tmp_path, "--set", "clip_skip=2", "--set", "strength=0.5", "--init-image", str(tmp_path / "start.png"))

    assert done.exit_code == 0, done.output
    [asked] = server.generated
    assert (asked["clip_skip"], asked["strength"], asked["init_image"]) == (2, 0.5, "c3RhcnQ=")
