"""How pytest-xdist deals out the tests: each file goes to one worker, and files that disturb each other go to the same one."""

from typing import Any

from xdist.scheduler.loadscope import LoadScopeScheduling

LANES = {
    "tests/sdks/": "whole stack",
    "tests/e2e/": "whole stack",
    "tests/faults/test_accepted_tunes_end.py": "stub stack",
    "tests/faults/test_broker_loss.py": "stub stack",
    "tests/faults/test_broker_outage.py": "stub stack",
    "tests/faults/test_drain.py": "stub stack",
    "tests/faults/test_killed_processes.py": "stub stack",
    "tests/faults/test_replay.py": "stub stack",
    "tests/faults/test_restore.py": "stub stack",
    "tests/faults/test_accounts_are_sealed.py": "consumer groups",
    "tests/integration/test_openapi.py": "consumer groups",
    "tests/integration/test_unsafe_pictures.py": "consumer groups",
    "tests/integration/test_upload_service.py": "consumer groups",
}
"""Files and folders whose tests run one after the other, by what they share: a stack whose processes they stop and kill, or the
services' consumer groups, among whose members the shared broker divides all events. The longest come first."""
_LATER = ("tests/faults/", "tests/integration/", "tests/contract/", "tests/unit/")
"""The order of the other files: the shortest come last, so that all workers end at about the same time."""


class Lanes(LoadScopeScheduling):
    """Deals out lanes in the order of the collection, whatever the number of their tests."""

    def __init__(self, config: Any, log: Any) -> None:
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
