"""What parent and child say to each other: one JSON object a line, over two pipes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.trainer.engine.config import Phase


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class Train(_Message):
    """Parent: train the job in this file. Said once in a child's life."""

    kind: Literal["train"] = "train"
    job_file: str


class Stop(_Message):
    """Parent: write a checkpoint after the step in hand and end."""

    kind: Literal["stop"] = "stop"


class Ready(_Message):
    """Child: everything is imported; a job may come."""

    kind: Literal["ready"] = "ready"
    device: str
    seconds: float


class PhaseReport(_Message):
    """Child: it is alive and busy with this phase."""

    kind: Literal["phase"] = "phase"
    phase: Phase


class StepReport(_Message):
    """Child: steps done, the mean loss since the last report, the speed, and the steps that this child computed.

    `losses` has one for each step since the last report.
    """

    kind: Literal["step"] = "step"
    step: int
    loss: float
    steps_per_second: float | None
    steps_run: int
    losses: list[float] = []


class CheckpointReport(_Message):
    """Child: a resumable state lies in this file; the file is whole."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    file: str


class SampleReport(_Message):
    """Child: the pictures for the validation prompts lie in these files, in the prompts' order, and were drawn with the seeds."""

    kind: Literal["sample"] = "sample"
    step: int
    files: list[str]
    seeds: list[int]


class Trained(_Message):
    """Child: the LoRA lies in this file; nothing more will come."""

    kind: Literal["trained"] = "trained"
    file: str
    steps_run: int


class Stopped(_Message):
    """Child: it stopped as asked; whatever can be resumed was reported before."""

    kind: Literal["stopped"] = "stopped"
    steps_run: int


class Failed(_Message):
    """Child: it cannot go on; `code` is of the error taxonomy."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str
    retryable: bool


ToChild = TypeAdapter[Train | Stop](Annotated[Train | Stop, Field(discriminator="kind")])
ChildReport = Ready | PhaseReport | StepReport | CheckpointReport | SampleReport | Trained | Stopped | Failed
FromChild = TypeAdapter[ChildReport](Annotated[ChildReport, Field(discriminator="kind")])
