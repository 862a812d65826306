"""Why an attempt fails outside the recipe: the tune keeps each error's code and text, and the text says what to do."""

from shared.errors import TunesmithError


class ChildDiedError(TunesmithError):
    """The training process ended without a report; the next attempt resumes from the last checkpoint."""

    code = "trainer_crashed"
    retryable = True


class StalledError(TunesmithError):
    """The training process reported nothing for longer than its phase allows, or its lease could not be renewed for too long."""

    code = "trainer_stalled"
    retryable = True


class InputUnavailableError(TunesmithError):
    """The tune's inputs were not downloaded in time."""

    code = "inputs_unavailable"
    retryable = True


class ChildFailedError(TunesmithError):
    """The training process reported why it cannot continue; code and retryability are those of the error in the process."""

    def __init__(self, message: str, *, code: str, retryable: bool) -> None:
        super().__init__(message)
        self.child_code = code
        self.child_retryable = retryable
