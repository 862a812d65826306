"""The curve on a terminal and in a notebook, and what notebooks show of answers."""

import io
import re

import pytest
from rich.console import Console

from tests.support.example_server import ExampleServer, drawn
from tunesmith import notebook
from tunesmith.client import Generated, GeneratedImage, Tune
from tunesmith.models import Losses
from tunesmith.plot import plot
from tunesmith.tune_watch import _Curve, _drawn


def test_a_falling_curve_goes_from_the_first_line_to_the_last() -> None:
    lines = plot([1 - number / 40 for number in range(40)], columns=10, rows=3)

    assert len(lines) == 3
    assert lines[0][0] == "\u2809" or ord(lines[0][0]) & 0x01
    assert ord(lines[-1][9]) & 0xC0
    assert lines[0].endswith(" 0.9875")
    assert lines[-1].endswith(" 0.0375")


@pytest.mark.parametrize(("values", "lines"), [([], ["", ""]), ([None], ["", ""]), ([2.0], ["\u2801 2", "\u2800 2"])])
def test_few_values_are_a_curve_as_well(values: list[float | None], lines: list[str]) -> None:
    assert plot(values, columns=4, rows=2) == lines


def test_a_curve_asks_for_new_losses_only_and_drops_those_that_are_trained_again() -> None:
    asked: list[int] = []

    class Stub:
        def losses(self, tune_id: str, after: int) -> Losses:
            asked.append(after)
            return Losses(first_step=after + 1, losses=[0.5, 0.4])

    server = ExampleServer()
    server.tunes.append({"name": "a", "details": {}})

    def at(step: int) -> Tune:
        progress = {"step": step, "steps": 10, "loss": 0.4, "steps_per_second": 2.0, "eta_seconds": 4.0}
        return Tune.model_validate(server.tune_answer(1, status="running", phase="training", progress=progress))

    curve = _Curve(Stub(), "tune_1")
    for step in (2, 2, 4, 3, 5):
        curve.update(at(step))

    assert asked == [0, 2, 3]
    assert list(curve.losses) == [1, 2, 3, 4, 5]
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(_drawn(at(5), curve, 100))
    shown = console.export_text()
    assert "a  training, step 5 of 10, loss 0.4000, 2.0 steps/s, 4 s left" in shown
    assert re.search("[\u2801-\u28ff]", shown)


def test_a_notebook_shows_the_curve_of_the_losses() -> None:
    shown = Losses(first_step=1, losses=[0.3, None, 0.1])._repr_html_()

    assert shown.count("<polyline") == 2
    assert "loss 0.2800 at step 3, between 0.1000 and 0.3000" in shown
    assert Losses(first_step=1, losses=[])._repr_html_() == "<div>no loss was reported yet</div>"


def test_a_notebook_shows_a_tune_with_its_progress_and_nothing_of_it_as_markup() -> None:
    shown = notebook.tune("<b>", "running", "<script>", 5, 10, ["http://store.test/a?b=1&c=2"])

    assert '<progress max="10" value="5"></progress> 5/10' in shown
    assert "<script>" not in shown
    assert 'src="http://store.test/a?b=1&amp;c=2"' in shown


def test_a_notebook_shows_images() -> None:
    made = Generated(images=[GeneratedImage(data=drawn("red"), seed=1), GeneratedImage(data=b"\xff\xd8\xff", seed=2)], notice="")

    shown = made._repr_html_()
    assert (shown.count("data:image/png;base64,"), shown.count("data:image/jpeg;base64,"), shown.count("seed 2")) == (1, 1, 2)
    assert made.images[0].pil().getpixel((0, 0)) == (255, 0, 0)
