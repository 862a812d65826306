"""Runs the scheduler: `python -m services.scheduler`."""

from services.scheduler.app import create_app
from services.scheduler.settings import SchedulerSettings
from shared.http import app as web

if __name__ == "__main__":
    settings = SchedulerSettings()  # pyright: ignore[reportCallIssue] - the environment fills the required fields
    web.run("scheduler", lambda: create_app(settings), settings)
