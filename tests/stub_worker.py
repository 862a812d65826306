"""The image worker's own process without torch: `python -m tests.stub_worker`.

It claims, stores and answers as the real one does; only its pictures are 1x1 and of one colour a seed. A prompt that begins with
`hold` is drawn once a file `go` lies in the worker's folder.
"""

import asyncio
import io

from PIL import Image

from services.inference.inputs import Inputs
from services.inference.worker import app
from services.inference.worker.service import Worker
from services.inference.worker.settings import WorkerSettings
from shared import web


class StubWorker(Worker):
    async def warm_up(self) -> None:
        self._free.set()

    async def ready(self) -> None:
        return None

    async def _draw(self, inputs: Inputs) -> tuple[list[bytes], list[str]]:
        while inputs.prompt.startswith("hold") and not (self._settings.work_dir / "go").exists():
            if self._stopping.is_set():
                msg = "the worker has to go, as the real one says between two sampler steps"
                raise RuntimeError(msg)
            await asyncio.sleep(0.01)
        return [_dot(seed) for seed in inputs.seeds], []


def _dot(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (seed % 256, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    app.Worker = StubWorker
    settings = WorkerSettings()
    web.run("inference-worker", lambda: app.create_app(settings), settings)
