"""The tests' side of a driver, a process in an SDK's environment that calls the SDK as the tests ask."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from tests.sdks.environments import Sdk, command


class SdkError(Exception):
    """What the SDK raised: the names of its class and bases, the HTTP status where the SDK keeps it, and the text."""

    def __init__(self, kinds: list[str], status: int | None, text: str) -> None:
        super().__init__(f"{kinds[0]}: {text}")
        self.kind, self.kinds, self.status, self.text = kinds[0], kinds, status, text


class Driver:
    """An SDK at work. `do` calls it; `offers` says which verbs the version has."""

    def __init__(self, sdk: Sdk, read: IO[str], write: IO[str], answers: Path) -> None:
        self.sdk = sdk
        self._read, self._write, self._answers = read, write, answers
        hello = self._answer()
        self.offers = set(hello["offers"])
        assert hello["version"] == sdk.version

    def do(self, verb: str, **args: Any) -> Any:
        """Return what the SDK returned, in JSON's types. Raises SdkError when the SDK raises."""
        print(json.dumps({"verb": verb, "args": args}), file=self._write, flush=True)
        answer = self._answer()
        if error := answer.get("error"):
            raise SdkError(**error)
        return answer["value"]

    @property
    def answers(self) -> list[tuple[float, int]]:
        """The answers that a Python SDK has had so far, those included after which it retried by itself.

        Each is a time in seconds, by the monotonic clock, and an HTTP status.
        """
        lines = self._answers.read_text().splitlines() if self._answers.exists() else []
        return [(float(at), int(status)) for at, status in (line.split() for line in lines)]

    def _answer(self) -> dict[str, Any]:
        line = self._read.readline()
        assert line, f"the driver of {self.sdk} ended; its output is above"
        return json.loads(line)


@contextmanager
def driving(sdk: Sdk, server: str, token: str, home: Path) -> Iterator[Driver]:
    """Run an SDK's driver against a server; with `home` as its home it does not read the user's own settings."""
    # A proxy that the machine may have cannot reach a server on loopback.
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "SERVER": server, "OCTOAI_TOKEN": token, "NO_PROXY": "127.0.0.1"}
    env |= {"AWS_ENDPOINT_URL_S3": server, "AWS_REGION": "us-east-1"}
    answers = home / f"answers-{uuid4().hex}"
    env |= {"ANSWERS": str(answers)}
    process = subprocess.Popen(command(sdk), env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Driver(sdk, process.stdout, process.stdin, answers)
    finally:
        # It holds nothing that needs an orderly end.
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
