"""Why training fails: the tune keeps each error's code and text, and the text says what to do."""

from shared.errors import TunesmithError


class InvalidParameterError(TunesmithError):
    """A number of the recipe is outside its limits."""

    code = "invalid"


class BadImageError(TunesmithError):
    """A training image cannot be read."""

    code = "bad_image"


class BadBaseError(TunesmithError):
    """The base checkpoint is damaged, or is not of the engine and shape that the tune recorded."""

    code = "bad_base"


class NotFiniteError(TunesmithError):
    """The loss became NaN or infinite."""

    code = "loss_not_finite"


class OutOfMemoryError(TunesmithError):
    """The device has too little memory for the job."""

    code = "out_of_memory"


class BadCheckpointError(TunesmithError):
    """Training cannot resume from a checkpoint of this tune."""

    code = "bad_checkpoint"
