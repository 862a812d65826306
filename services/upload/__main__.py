"""Runs the upload service: `python -m services.upload`."""

from services.upload.app import create_app
from services.upload.settings import UploadSettings
from shared.http import app as web

if __name__ == "__main__":
    settings = UploadSettings()  # pyright: ignore[reportCallIssue] - the environment fills the required fields
    web.run("upload", lambda: create_app(settings), settings)
