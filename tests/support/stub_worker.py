"""The process of the image worker without torch: `python -m tests.support.stub_worker`.

It claims and stores as the real worker does. Its images are 1x1 pixels, one colour for each seed. A prompt that begins with `hold`
is drawn once the worker's folder has a file `go`.
"""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from services.inference.inputs import Drawing, DrawnImage, Inputs
from services.inference.worker import app
from services.inference.worker.materials import Materials
from services.inference.worker.service import Worker
from services.inference.worker.settings import WorkerSettings
from services.inference.worker.steps import OnStep
from shared.http import app as web


class StubPainter:
    """Replaces the painter, which needs torch."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._go = settings.work_dir / "go"

    def draw(self, inputs: Inputs, _materials: Materials, on_step: OnStep) -> Drawing:
        while inputs.prompt.startswith("hold") and not self._go.exists():
            on_step(1, 2, np.zeros((1, 1, 1, 1)))
            time.sleep(0.01)
        return Drawing([DrawnImage(_dot(seed)) for seed in inputs.seeds], [], 0.0)

    def test(self) -> None:
        """Pass."""


class NoSupplies:
    """Fetches nothing: an image of one colour needs no model."""

    async def fetch(self, _inputs: Inputs) -> Materials:
        return Materials(Path())


class StubWorker(Worker):
    """The real worker with both stubs."""

    def __init__(self, settings: WorkerSettings, *parts: Any) -> None:
        super().__init__(settings, *parts)
        self._painter = StubPainter(settings)
        self._supplies = NoSupplies()


def _dot(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (seed % 256, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    app.Worker = StubWorker
    settings = WorkerSettings()
    web.run("inference-worker", lambda: app.create_app(settings), settings)
