"""The guide's own curl commands: for people without an SDK, or with one that cannot create tunes."""

import json
import subprocess
from typing import Any

from tests.sdks.driver import SdkError


class Curl:
    """Calls a server by the curl command, with the verbs of a driver."""

    def __init__(self, server: str, token: str) -> None:
        self._server, self._token = server, token

    def do(self, verb: str, **args: Any) -> Any:
        """Return the server's answer. Raises SdkError for an answer that is an error."""
        return getattr(self, verb)(**args)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as the guide's commands do."""
        command = ["curl", "-sS", "-X", method, self._server + path, "--noproxy", "*", "-w", "\n%{http_code}"]
        command += ["-H", f"Authorization: Bearer {self._token}", "-H", "Content-Type: application/json"]
        if body is not None:
            command += ["-d", json.dumps(body)]
        text, _, status = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.rpartition("\n")
        if int(status) >= 400:
            raise SdkError(["curl"], int(status), text)
        return json.loads(text)

    def create_tune(self, name: str, base: str, files: dict[str, str], trigger_word: str, steps: int) -> Any:
        """Start a tune with the guide's body, which has a top-level field for the tune's type."""
        body = {
            "name": name,
            "description": "",
            "tune_type": "lora_tune",
            "details": {
                "base_checkpoint": {"checkpoint_id": base, "name": "a name that the guide had here"},
                "files": [{"file_id": file_id, "caption": caption} for file_id, caption in files.items()],
                "steps": steps,
                "trigger_words": [trigger_word],
            },
        }
        return self.send("POST", "/v1/tune", body)

    def tune(self, tune_id: str) -> Any:
        """Return a tune."""
        return self.send("GET", f"/v1/tune/{tune_id}")

    def tunes(self, **filters: Any) -> Any:
        """Return a page of tunes."""
        names = {"base_checkpoint": "base_checkpoint_id"}
        query = "&".join(
            f"{names.get(key, key)}={item}"
            for key, value in filters.items()
            for item in (value if isinstance(value, list) else [value])
        )
        return self.send("GET", f"/v1/tunes?{query}")

    def cancel_tune(self, tune_id: str) -> Any:
        """Cancel a tune."""
        return self.send("POST", f"/v1/tune/{tune_id}/cancel")

    def delete_tune(self, tune_id: str) -> Any:
        """Delete a tune."""
        return self.send("DELETE", f"/v1/tune/{tune_id}")
