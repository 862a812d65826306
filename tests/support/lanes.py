"""How pytest-xdist deals out the tests: each file goes to one worker, and files that disturb each other go to the same one."""

from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from deploy.local.paths import PROJECT

LANES = {
    "tests/sdks/": "whole stack",
    "tests/e2e/": "whole stack",
    "tests/browser/": "whole stack",
    "tests/faults/test_accepted_tunes_end.py": "stub stack",
    "tests/faults/test_broker_loss.py": "stub stack",
    "tests/faults/test_broker_outage.py": "stub stack",
    "tests/faults/test_drain.py": "stub stack",
    "tests/faults/test_killed_processes.py": "stub stack",
    "tests/faults/test_replay.py": "stub stack",
    "tests/faults/test_restore.py": "stub stack",
    "tests/faults/test_accounts_are_sealed.py": "consumer groups",
    "tests/integration/test_openapi.py": "consumer groups",
    "tests/integration/test_unsafe_images.py": "consumer groups",
    "tests/integration/test_upload_service.py": "consumer groups",
}
"""Files and folders whose tests run one after the other, by what they share: a stack whose processes they stop and kill, or the
services' consumer groups, among whose members the shared broker divides all events. The longest come first."""
_LATER = ("tests/faults/", "tests/integration/", "tests/contract/", "tests/unit/")
"""The order of the other files: the shortest come last, so that all workers end at about the same time."""


def _check_table() -> None:
    """Raise for a file that was renamed: its tests would run beside those that they disturb."""
    if missing := [start for start in LANES if not (PROJECT / start).exists()]:
        msg = f"tests/support/lanes.py names files that do not exist: {', '.join(missing)}"
        raise pytest.UsageError(msg)


class Lanes(LoadScopeScheduling):
    """Deals out lanes in the order of the collection, whatever the number of their tests."""

    def __init__(self, config: Any, log: Any) -> None:
        _check_table()
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)


def lane(nodeid: str) -> str:
    """Return the lane of a test: that of its file or folder in the table, else its file."""
    file = nodeid.partition("::")[0]
    return next((name for start, name in LANES.items() if file.startswith(start)), file)


def place(nodeid: str) -> int:
    """Return the place of a test's lane in the order in which lanes are dealt out."""
    starts = (*LANES, *_LATER)
    return next((number for number, start in enumerate(starts) if nodeid.startswith(start)), len(starts))
