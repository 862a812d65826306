"""Tunes: start them, follow them, end them.

Written from `asynchronous/tunes.py` by `python -m tests.support.synchronous`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from tunesmith import asset_files
from tunesmith.models import Delivery, Losses, Sample, TuneEvent, WhatIf
from tunesmith.synchronous import runtime
from tunesmith.synchronous.transport import Transport
from tunesmith.synchronous.tune import Tune
from tunesmith.wire import tune_body

_POLL_S = 0.5


class Tunes(Transport):
    """The part of the client for tunes."""

    def _tune(self, answer: dict[str, Any]) -> Tune:
        return Tune.model_validate(answer).of(self)

    def create_tune(
        self,
        name: str,
        *,
        base: str,
        files: Sequence[tuple[str, str | None]],
        trigger_word: str,
        steps: int,
        seed: int | None = None,
        description: str | None = None,
        continue_on_rejection: bool | None = None,
        dataset_id: str | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        **options: Any,
    ) -> Tune:
        """Start a tune on (asset id, caption) pairs. `options` are more fields of `details`, for example `rank=16`.

        >>> rex = client.asset("rex")
        >>> tune = client.create_tune(
        ...     "my-dog", base="octoai:default-sd15", files=[(rex.id, "a sks1 dog")], trigger_word="sks1", steps=500
        ... )
        >>> tune.status
        'pending'
        """
        body = tune_body(name, base, files, trigger_word, steps, seed, options)
        more = {
            "description": description,
            "continue_on_rejection": continue_on_rejection,
            "dataset_id": dataset_id,
            "webhook": webhook,
            "webhook_events_filter": webhook_events_filter,
        }
        body |= {key: value for key, value in more.items() if value is not None}
        return self._tune(self._call("POST", "/v1/tune", json=body))

    def clone_tune(self, tune: Tune, name: str, **changes: Any) -> Tune:
        """Start a tune on the same images with the same settings, but for `changes`, which are fields of `details`.

        >>> longer = client.clone_tune(client.find_tune("my-dog"), "my-dog-2", steps=800)
        >>> longer.details["steps"]
        800
        """
        body: dict[str, Any] = {"name": name, "description": tune.description or None, "dataset_id": tune.dataset_id}
        body["details"] = tune.request_details() | changes
        return self._tune(self._call("POST", "/v1/tune", json=body))

    def what_if(
        self,
        name: str,
        *,
        base: str,
        files: Sequence[tuple[str, str | None]],
        trigger_word: str,
        steps: int,
        seed: int | None = None,
        **options: Any,
    ) -> WhatIf:
        """Return advice and the estimated cost of a tune without starting it. Raises what `create_tune` would raise."""
        body = tune_body(name, base, files, trigger_word, steps, seed, options)
        return WhatIf.model_validate(self._call("POST", "/v1/tune", params={"whatif": "true"}, json=body))

    def tune(self, tune_id: str) -> Tune:
        """Return a tune."""
        return self._tune(self._call("GET", f"/v1/tune/{tune_id}"))

    def find_tune(self, name_or_id: str) -> Tune:
        """Return the tune of this name. If there is none, the argument is taken to be an id."""
        for found in self.iter_tunes(name=name_or_id):
            return found
        return self.tune(name_or_id)

    def iter_tunes(self, **filters: Any) -> Iterator[Tune]:
        """Yield the tunes, newest first, page by page as they are read. The filters are the API's.

        >>> [tune.name for tune in client.iter_tunes(status="pending")]
        ['my-dog']
        """
        for item in self._pages("/v1/tunes", filters):
            yield self._tune(item)

    def tunes(self, **filters: Any) -> list[Tune]:
        """Return the tunes, newest first."""
        return list(self.iter_tunes(**filters))

    def watch(self, tune_id: str, every_s: float = _POLL_S) -> Iterator[Tune]:
        """Yield the tune every half second until it has ended. The last one has ended."""
        while not (now := self.tune(tune_id)).has_ended:
            yield now
            runtime.sleep(every_s)
        yield now

    def tune_events(self, tune_id: str, after: int = 0) -> list[TuneEvent]:
        """Return the events of a tune after a sequence number, oldest first."""
        pages = self._numbered(f"/v1/tune/{tune_id}/events", after)
        return [cast("TuneEvent", event) for event in pages]

    def follow_tune(self, tune_id: str, after: int = 0) -> Iterator[TuneEvent]:
        """Yield the events of a tune as they happen, until it has ended. Reconnects when the connection is lost."""
        return self._stream(f"/v1/tune/{tune_id}/events/stream", after)

    def losses(self, tune_id: str, after: int = 0) -> Losses:
        """Return the loss of each step after a step. A notebook shows them as a curve."""
        return Losses.model_validate(self._call("GET", f"/v1/tune/{tune_id}/losses", params={"after": after}))

    def samples(self, tune_id: str) -> list[Sample]:
        """Return the images that were generated for the validation prompts, by step and prompt."""
        answer = self._call("GET", f"/v1/tune/{tune_id}/samples")
        return [Sample.model_validate(item) for item in answer["data"]]

    def download_sample(self, sample: Sample, folder: str | Path, name: str) -> Path:
        """Download a sample into a folder, under a name that gets the ending of its format, and return the file's path."""
        folder, _ = asset_files.target(f"{folder}{os.sep}")
        part = folder / f".{name}.part"
        self._fetch(sample.url, part)
        return asset_files.finish(part, folder, name, has_name=False)

    def cancel_tune(self, tune_id: str) -> Tune:
        """Ask a tune to stop, and return it."""
        return self._tune(self._call("POST", f"/v1/tune/{tune_id}/cancel"))

    def delete_tune(self, tune_id: str) -> None:
        """Delete a tune. Its images and its LoRA stay."""
        self._delete(f"/v1/tune/{tune_id}")

    def webhook_secret(self) -> str:
        """Return the secret that signs the account's webhooks."""
        answer = self._call("GET", "/v1/tunes/webhook-secret")
        return answer["secret"]

    def rotate_webhook_secret(self) -> str:
        """Replace the secret that signs the account's webhooks, and return the new one. Calls carry both signatures for a day."""
        answer = self._call("POST", "/v1/tunes/webhook-secret/rotate")
        return answer["secret"]

    def webhook_deliveries(self, tune_id: str) -> list[Delivery]:
        """Return the calls of a tune's webhook, oldest first."""
        pages = self._numbered(f"/v1/tune/{tune_id}/webhook_deliveries", 0)
        return [Delivery.model_validate(item) for item in pages]
