"""The trainer with the stub child as its training process: `python -m tests.support.stub_trainer`."""

from functools import partial

from services.trainer import app
from services.trainer.service import TrainerService
from services.trainer.settings import TrainerSettings
from shared.http import app as web
from tests.support.trainer_world import STUB_CHILD

if __name__ == "__main__":
    app.TrainerService = partial(TrainerService, child_command=STUB_CHILD)
    settings = TrainerSettings()  # pyright: ignore[reportCallIssue] - the environment fills the required fields
    web.run("trainer", lambda: app.create_app(settings), settings)
