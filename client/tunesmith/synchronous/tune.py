"""A tune, with what can be done with it.

Written from `asynchronous/tune.py` by `python -m tests.support.synchronous`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import PrivateAttr

from tunesmith.errors import TunesmithApiError
from tunesmith.folders import read_folders
from tunesmith.models import Losses, Sample, TuneEvent, TuneFields
from tunesmith.synchronous import training

if TYPE_CHECKING:
    from tunesmith.synchronous.client import Client
    from tunesmith.synchronous.transport import Transport


class Tune(TuneFields):
    """A fine-tune. What a client returns can be asked, waited for and cancelled; a notebook shows its progress."""

    _NOT_SENT: ClassVar = frozenset({"name", "engine"})
    _client: "Client | None" = PrivateAttr(default=None)

    def of(self, client: "Transport") -> Self:
        """Return the tune, which asks this client from now on."""
        self._client = cast("Client", client)
        return self

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        client: "Client | None" = None,
        name: str | None = None,
        trigger_word: str | None = None,
        base: str = "octoai:default-sd15",
        steps: int | None = None,
        on_note: Callable[[str], object] | None = None,
        **options: Any,
    ) -> Self:
        """Upload the images of a folder and start a tune on them, with the captions of the text files beside them.

        A folder named `10_sks1 dog`, or one that holds such folders, gives the trigger word and the captions of images without
        a text file. `name` is the folder's name by default, and `steps` are 100 per image, at least 400. Images that are
        in the library already are not sent again. `on_note` is told what was left out or assumed. Without `client`, the
        environment names the server.

        >>> tune = Tune.from_folder("photos/10_sks1 dog", client=client, name="my-other-dog")
        >>> tune.details["trigger_words"], tune.details["steps"], len(tune.details["files"])
        (['sks1'], 400, 2)
        """
        from tunesmith.synchronous.client import Client  # noqa: PLC0415 - the client's module imports this one

        client = client or Client()
        found = read_folders([Path(folder)])
        for note in found.notes:
            if on_note:
                on_note(note)
        trigger_word, name = found.trigger_word_or(trigger_word), name or found.tune_name_or(Path(folder))
        pairs = training.upload_images(client, name, found, on_note=on_note)
        steps = steps or found.default_steps
        made = client.create_tune(name, base=base, files=pairs, trigger_word=trigger_word, steps=steps, **options)
        return cast("Self", made)

    def refresh(self) -> Self:
        """Return the tune as it is now."""
        return cast("Self", self._asked().tune(self.id))

    def wait(self, on_progress: Callable[[Self], object] | None = None) -> Self:
        """Wait until the tune has succeeded, and return it. Raises TunesmithApiError when it fails or is cancelled.

        `on_progress` is called with the tune whenever it has changed.

        >>> tune = client.find_tune("my-dog")
        >>> done = tune.wait(on_progress=lambda now: print(now.status, now.progress and now.progress.step))
        running 250
        succeeded 500
        """
        seen = -1
        now = self
        for now in self._asked().watch(self.id):
            if on_progress and now.sequence != seen:
                on_progress(cast("Self", now))
            seen = now.sequence
        if now.status != "succeeded":
            raise TunesmithApiError(0, now.status, f"the tune {now.name} {now.status}: {now.status_details}")
        return cast("Self", now)

    def events(self, after: int = 0) -> Iterator[TuneEvent]:
        """Yield the tune's events as they happen, until it has ended."""
        return self._asked().follow_tune(self.id, after)

    def losses(self) -> Losses:
        """Return the loss of each step. A notebook shows them as a curve."""
        return self._asked().losses(self.id)

    def samples(self) -> list[Sample]:
        """Return the images that were generated for the validation prompts."""
        return self._asked().samples(self.id)

    def previews(self) -> Iterator[Sample]:
        """Yield the images for the validation prompts as they are generated, until the tune has ended."""
        for event in self.events():
            if event["type"] == "tune.sampled":
                for sample in event["data"]["samples"]:
                    # A resumed training has generated the image again, and a later event has it.
                    if sample["url"]:
                        yield Sample.model_validate({"step": event["data"]["step"], **sample})

    def cancel(self) -> Self:
        """Ask the tune to stop, and return it."""
        return cast("Self", self._asked().cancel_tune(self.id))

    def delete(self) -> None:
        """Delete the tune. Its images and its LoRA stay."""
        self._asked().delete_tune(self.id)

    def request_details(self) -> dict[str, Any]:
        """Return the `details` of a request for the same tune."""
        details = {key: value for key, value in self.details.items() if value is not None and key not in self._NOT_SENT}
        base = details["base_checkpoint"]
        details["base_checkpoint"] = {"checkpoint_id": base["checkpoint_id"]}
        return details

    def _asked(self) -> "Client":
        if self._client is None:
            msg = "this tune was not returned by a client: ask a client for it, for example by client.tune(tune.id)"
            raise TunesmithApiError(0, "no_client", msg)
        return self._client
