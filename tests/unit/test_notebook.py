"""The notebook of the docs runs from its first cell to its last, without a stack; `tests/sdks` runs it on one."""

from pathlib import Path

import pytest

import tunesmith
from tests.support import notebook
from tests.support.example_server import ExampleServer

ROOT = Path(__file__).parents[2]


def test_each_cell_shows_what_the_text_above_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ExampleServer()
    monkeypatch.setattr(tunesmith, "Client", server.client)
    monkeypatch.setenv("PHOTOS", str(ROOT / "client" / "tunesmith" / "samples"))

    photos, started, ended, curve, sample, image, sizes = notebook.run(ROOT / "docs" / "notebooks" / "tune.ipynb")

    assert photos.count(".png") == 5
    assert "<b>notebook-star</b> pending" in started
    assert '<progress max="500" value="500">' in ended
    assert "<polyline" in curve
    assert "step 500: a sks1 dog" in sample
    assert "data:image/png;base64," in image
    assert sizes == "[(64, 64), (64, 64), (64, 64)]"
    assert [body["loras"] for body in server.generated] == [{"notebook-star": weight} for weight in (0.0, 0.5, 1.0)]
