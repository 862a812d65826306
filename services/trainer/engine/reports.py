"""What the recipe reports while it trains, and what it returns in the end."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from services.trainer.engine.config import Phase


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class PhaseReport(_Report):
    """Training is alive and busy with this phase."""

    kind: Literal["phase"] = "phase"
    phase: Phase


class StepReport(_Report):
    """The last finished step, the mean loss since the last report, the speed, and the steps that this process has computed.

    `losses` has one entry for each step since the last report.
    """

    kind: Literal["step"] = "step"
    step: int
    loss: float
    steps_per_second: float | None
    steps_run: int
    losses: list[float] = []


class CheckpointReport(_Report):
    """This file holds a whole state to resume from."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    file: str


class SampleReport(_Report):
    """These files hold the images for the validation prompts, in the prompts' order; each was generated with its seed."""

    kind: Literal["sample"] = "sample"
    step: int
    files: list[str]
    seeds: list[int]


class Trained(_Report):
    """This file holds the LoRA; nothing follows."""

    kind: Literal["trained"] = "trained"
    file: str
    steps_run: int


class Stopped(_Report):
    """Training stopped as asked; a checkpoint to resume from was reported before, if there was any progress."""

    kind: Literal["stopped"] = "stopped"
    steps_run: int


Report = PhaseReport | StepReport | CheckpointReport | SampleReport
Result = Trained | Stopped
