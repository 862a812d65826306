"""The messages between the service and its training process: one JSON object a line, over two pipes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from services.trainer.engine.reports import Report, Result


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class Train(_Message):
    """To the child: train the job in this file. Sent once in a child's life."""

    kind: Literal["train"] = "train"
    job_file: str


class Stop(_Message):
    """To the child: finish the current step, write a checkpoint and end."""

    kind: Literal["stop"] = "stop"


class Ready(_Message):
    """From the child: the libraries are imported; it can take a job."""

    kind: Literal["ready"] = "ready"
    device: str
    seconds: float
    memory_bytes: int | None = None
    """Of the GPU; None on a CPU."""


class Failed(_Message):
    """From the child: it cannot continue; `code` is one of the error taxonomy."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str
    retryable: bool


Order = Train | Stop
ChildMessage = Ready | Report | Result | Failed
ToChild = TypeAdapter[Order](Annotated[Order, Field(discriminator="kind")])
FromChild = TypeAdapter[ChildMessage](Annotated[ChildMessage, Field(discriminator="kind")])
