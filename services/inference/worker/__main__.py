"""Runs an image worker: `python -m services.inference.worker`."""

from services.inference.worker.app import create_app
from services.inference.worker.settings import WorkerSettings
from shared.http import app as web

if __name__ == "__main__":
    settings = WorkerSettings()  # pyright: ignore[reportCallIssue] - the environment fills the required fields
    web.run("inference-worker", lambda: create_app(settings), settings)
