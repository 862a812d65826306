"""What accounts and logs may see of an error: no path of this machine, no address of the internal network, no prompt."""

import pytest
from pydantic import BaseModel, ValidationError

from services.inference.inputs import Inputs
from services.trainer.engine.config import Job
from shared.errors import DiskError, UnavailableError, public_reason
from shared.messaging.events import EVENTS
from shared.settings import ServiceSettings

PATH = "/var/lib/tunesmith/jobs/tune_1/base"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", PATH), "No such file or directory"),
        (OSError(28, "No space left on device", PATH), "No space left on device"),
        (OSError(f"{PATH} is no folder"), "an unexpected error (OSError)"),
        (RuntimeError(f"cannot open {PATH}"), "an unexpected error (RuntimeError)"),
        (DiskError(f"{PATH} is full"), "an unexpected error (DiskError)"),
        (UnavailableError("http://10.0.0.1:9000 does not answer"), "an unexpected error (UnavailableError)"),
    ],
)
def test_the_reason_of_an_unexpected_error_has_no_path_and_no_address(error: Exception, reason: str) -> None:
    assert public_reason(error) == reason


@pytest.mark.parametrize("kind", [Inputs, Job, ServiceSettings, *EVENTS.values()])
def test_a_document_that_does_not_fit_is_not_repeated_in_the_error(kind: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate({"prompt": ["secret garden"], "account_id": ["secret garden"], "database_url": ["secret garden"]})

    assert "secret garden" not in str(refused.value)
