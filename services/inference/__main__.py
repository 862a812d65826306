"""Runs the image API: `python -m services.inference`."""

from services.inference.app import create_app
from services.inference.settings import InferenceSettings
from shared.http import app as web

if __name__ == "__main__":
    settings = InferenceSettings()  # pyright: ignore[reportCallIssue] - the environment fills the required fields
    web.run("inference", lambda: create_app(settings), settings)
