"""Runs the trainer: `python -m services.trainer`."""

from services.trainer.app import create_app
from services.trainer.settings import TrainerSettings
from shared.http import app as web

if __name__ == "__main__":
    settings = TrainerSettings()  # pyright: ignore[reportCallIssue] - the environment fills the required fields
    web.run("trainer", lambda: create_app(settings), settings)
