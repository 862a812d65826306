"""Datasets: images, captions and settings that are kept for a tune.

Written from `asynchronous/datasets.py` by `python -m tests.support.synchronous`.
"""

from collections.abc import Iterator
from typing import Any

from tunesmith.models import Dataset
from tunesmith.synchronous.transport import Transport


class Datasets(Transport):
    """The part of the client for datasets."""

    def create_dataset(self, name: str = "", **fields: Any) -> Dataset:
        """Keep images, captions and settings. `fields` are the API's.

        >>> rex = client.asset("rex")
        >>> files = [{"file_id": rex.id, "caption": "a sks1 dog"}]
        >>> kept = client.create_dataset("dogs", trigger_word="sks1", files=files)
        >>> (client.change_dataset(kept, subject_class="dog")).version
        2
        """
        return Dataset.model_validate(self._call("POST", "/v1/datasets", json={"name": name, **fields}))

    def dataset(self, dataset_id: str) -> Dataset:
        """Return a dataset."""
        return Dataset.model_validate(self._call("GET", f"/v1/datasets/{dataset_id}"))

    def iter_datasets(self) -> Iterator[Dataset]:
        """Yield the datasets, the last changed first, page by page as they are read."""
        for item in self._pages("/v1/datasets", {}):
            yield Dataset.model_validate(item)

    def datasets(self) -> list[Dataset]:
        """Return the datasets, the last changed first."""
        return list(self.iter_datasets())

    def change_dataset(self, dataset: Dataset, **changes: Any) -> Dataset:
        """Change fields of a dataset and return it.

        Raises TunesmithApiError with the code `changed` when it has another version by now.
        """
        kept = dataset.model_dump(include={"name", "trigger_word", "subject_class", "files", "settings"})
        # A lost answer may have been that of the change, and the same change on the old version would be refused.
        options = {"headers": {"If-Match": str(dataset.version)}, "is_repeatable": False}
        return Dataset.model_validate(self._call("PUT", f"/v1/datasets/{dataset.id}", json=kept | changes, **options))

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset. Its images and the tunes that were started from it stay."""
        self._delete(f"/v1/datasets/{dataset_id}")
