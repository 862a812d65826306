"""The folders and files of a local stack."""

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def default_data_dir() -> Path:
    """Return the default stack's folder: `.data` in the clone."""
    return PROJECT / ".data"


def cache_dir() -> Path:
    """Return the user's cache folder, for downloads that every stack shares."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tunesmith"


@dataclass(frozen=True)
class StackPaths:
    """The folders and files of one stack, all below its data folder."""

    data_dir: Path

    @property
    def postgres(self) -> Path:
        """PostgreSQL's cluster."""
        return self.data_dir / "postgres"

    @property
    def kafka(self) -> Path:
        """Kafka's log and metadata."""
        return self.data_dir / "kafka"

    @property
    def store(self) -> Path:
        """The S3 store's volumes."""
        return self.data_dir / "store"

    @property
    def edge(self) -> Path:
        """The edge's configuration and state."""
        return self.data_dir / "edge"

    @property
    def secrets(self) -> Path:
        """Generated passwords and the first API key, each in a file of mode 0600."""
        return self.data_dir / "secrets"

    @property
    def api_key(self) -> Path:
        """The key of the local account, which the first start creates."""
        return self.secrets / "api_key"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.data_dir / "logs"

    @property
    def work(self) -> Path:
        """Scratch folders of the services."""
        return self.data_dir / "work"

    @property
    def ports(self) -> Path:
        """The ports that this stack uses. They stay the same from start to start."""
        return self.data_dir / "ports.json"

    @property
    def state(self) -> Path:
        """What is running now: the pids of the supervisor and of each process."""
        return self.data_dir / "state.json"

    @property
    def lock(self) -> Path:
        """A lock that every process of the stack holds as long as it lives."""
        return self.data_dir / "lock"

    def create(self) -> None:
        """Create the folders. Only the owner may read the data folder."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        for folder in (self.edge, self.secrets, self.logs, self.work):
            folder.mkdir(exist_ok=True)
        self.secrets.chmod(0o700)
