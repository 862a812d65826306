"""Datasets: images, captions and settings that are kept for a tune."""

from collections.abc import AsyncIterator
from typing import Any

from tunesmith.asynchronous.transport import AsyncTransport
from tunesmith.models import Dataset


class AsyncDatasets(AsyncTransport):
    """The part of the client for datasets."""

    async def create_dataset(self, name: str = "", **fields: Any) -> Dataset:
        """Keep images, captions and settings. `fields` are the API's.

        >>> rex = await client.asset("rex")
        >>> files = [{"file_id": rex.id, "caption": "a sks1 dog"}]
        >>> kept = await client.create_dataset("dogs", trigger_word="sks1", files=files)
        >>> (await client.change_dataset(kept, subject_class="dog")).version
        2
        """
        return Dataset.model_validate(await self._call("POST", "/v1/datasets", json={"name": name, **fields}))

    async def dataset(self, dataset_id: str) -> Dataset:
        """Return a dataset."""
        return Dataset.model_validate(await self._call("GET", f"/v1/datasets/{dataset_id}"))

    async def iter_datasets(self) -> AsyncIterator[Dataset]:
        """Yield the datasets, the last changed first, page by page as they are read."""
        async for item in self._pages("/v1/datasets", {}):
            yield Dataset.model_validate(item)

    async def datasets(self) -> list[Dataset]:
        """Return the datasets, the last changed first."""
        return [dataset async for dataset in self.iter_datasets()]

    async def change_dataset(self, dataset: Dataset, **changes: Any) -> Dataset:
        """Change fields of a dataset and return it.

        Raises TunesmithApiError with the code `changed` when it has another version by now.
        """
        kept = dataset.model_dump(include={"name", "trigger_word", "subject_class", "files", "settings"})
        # A lost answer may have been that of the change, and the same change on the old version would be refused.
        options = {"headers": {"If-Match": str(dataset.version)}, "is_repeatable": False}
        return Dataset.model_validate(await self._call("PUT", f"/v1/datasets/{dataset.id}", json=kept | changes, **options))

    async def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset. Its images and the tunes that were started from it stay."""
        await self._delete(f"/v1/datasets/{dataset_id}")
