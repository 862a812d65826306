"""Why a tune fails: each error's code and text end up in the tune, and say what to do."""

from shared.errors import TunesmithError


class InvalidParameterError(TunesmithError):
    """A number of the recipe is out of its limits."""

    code = "invalid"


class BadImageError(TunesmithError):
    """A training image cannot be read."""

    code = "bad_image"


class BadBaseError(TunesmithError):
    """The base checkpoint cannot be used: it is damaged, or not of the engine and shape that the tune recorded."""

    code = "bad_base"


class NotFiniteError(TunesmithError):
    """The loss became NaN or infinite."""

    code = "loss_not_finite"


class OutOfMemoryError(TunesmithError):
    """The device's memory does not suffice."""

    code = "out_of_memory"


class BadCheckpointError(TunesmithError):
    """A checkpoint of this tune cannot be resumed from."""

    code = "bad_checkpoint"


class ChildDiedError(TunesmithError):
    """The training process ended without saying why; the next attempt resumes from the last checkpoint."""

    code = "trainer_crashed"
    retryable = True


class StalledError(TunesmithError):
    """The training process said nothing for longer than its phase's bound."""

    code = "trainer_stalled"
    retryable = True


class InputUnavailableError(TunesmithError):
    """The tune's inputs could not be downloaded within the bound."""

    code = "inputs_unavailable"
    retryable = True


class ChildFailedError(TunesmithError):
    """The training process said why it cannot go on; the code is that of the error which it met."""

    def __init__(self, message: str, *, code: str, retryable: bool) -> None:
        super().__init__(message)
        self.child_code = code
        self.child_retryable = retryable
