"""Runs the console: `python -m services.console`."""

from services.console.app import create_app
from services.console.settings import ConsoleSettings
from shared.http import app as web

if __name__ == "__main__":
    settings = ConsoleSettings()
    web.run("console", lambda: create_app(settings), settings)
