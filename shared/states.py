"""The states of a tune, who may move it where, and what a client sees.

`docs/architecture.md` shows this table rendered; CHECK constraints in the schema back it.
"""

from enum import StrEnum


class TuneState(StrEnum):
    """The internal state of a tune; a client sees one of `ClientStatus`."""

    WAITING_FILES = "waiting_files"
    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ClientStatus(StrEnum):
    """The status of a tune in OctoAI's API."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


S = TuneState
TRANSITIONS: dict[TuneState, dict[TuneState, str]] = {
    S.WAITING_FILES: {
        S.QUEUED: "scheduler: every file has its verdict",
        S.FAILED: "scheduler: files were rejected, or got no verdict in time",
        S.CANCELLED: "scheduler: cancel requested",
    },
    S.QUEUED: {
        S.PREPARING: "trainer: claims it under a new lease epoch",
        S.FAILED: "scheduler: no attempt is left",
        S.CANCELLED: "scheduler: cancel requested",
    },
    S.PREPARING: {
        S.TRAINING: "trainer: the first step begins",
        S.QUEUED: "trainer: preempted; scheduler: the lease expired",
        S.FAILED: "trainer: a permanent error; scheduler: no attempt is left",
        S.CANCELLED: "trainer: saw the request; scheduler: the lease expired after it",
    },
    S.TRAINING: {
        S.PUBLISHING: "trainer: the LoRA is stored; the point of no return",
        S.QUEUED: "trainer: preempted; scheduler: the lease expired",
        S.FAILED: "trainer: a permanent error; scheduler: no attempt is left",
        S.CANCELLED: "trainer: saw the request; scheduler: the lease expired after it",
    },
    S.PUBLISHING: {
        S.SUCCEEDED: "scheduler: the LoRA is in the library",
        S.FAILED: "scheduler: the LoRA cannot be registered",
    },
    S.SUCCEEDED: {},
    S.FAILED: {},
    S.CANCELLED: {},
}
"""From each state to the states it may move to, with who moves it and why."""

TERMINAL = frozenset(state for state, targets in TRANSITIONS.items() if not targets)
LEASED = frozenset({S.PREPARING, S.TRAINING})
"""The states in which a trainer holds the lease."""
CANCELLABLE = frozenset(state for state, targets in TRANSITIONS.items() if S.CANCELLED in targets)


def client_status(state: TuneState, lease_epoch: int) -> ClientStatus:
    """Return what a client sees: pending until the first claim, then running until the tune ends, even while it is queued again.

    `lease_epoch` counts the claims; 0 means that no trainer has claimed the tune yet.
    """
    if state in TERMINAL:
        return ClientStatus(state.value)
    if state in LEASED or state is S.PUBLISHING or lease_epoch > 0:
        return ClientStatus.RUNNING
    return ClientStatus.PENDING
