"""Asks the other processes for their API descriptions and whether they are ready."""

import asyncio
from dataclasses import dataclass

import httpx

from services.console.openapi import Document
from services.console.settings import ConsoleSettings
from shared.errors import UnavailableError, public_reason


@dataclass(frozen=True)
class ProcessStatus:
    """A process of the platform, as the start page shows it."""

    name: str
    task: str
    ready: bool
    problem: str


_TASKS = {
    "upload": "stores images, checkpoints and LoRAs",
    "scheduler": "accepts tunes and queues them",
    "trainer": "trains LoRAs",
    "inference": "accepts image requests",
    "inference-worker": "draws images",
}


class Platform:
    """The other processes, asked by HTTP."""

    def __init__(self, settings: ConsoleSettings, client: httpx.AsyncClient) -> None:
        self._client = client
        self._apis = {
            "upload": settings.upload_url,
            "scheduler": settings.scheduler_url,
            "inference": settings.inference_url,
        }
        workers = {"trainer": settings.trainer_url, "inference-worker": settings.inference_worker_url}
        self._processes = self._apis | {name: url for name, url in workers.items() if url}

    async def documents(self) -> dict[str, Document]:
        """Return the OpenAPI document of each API service. Raises UnavailableError if one does not answer."""
        try:
            answers = await asyncio.gather(*(self._client.get(f"{url}/openapi.json") for url in self._apis.values()))
            return {name: answer.raise_for_status().json() for name, answer in zip(self._apis, answers, strict=True)}
        except httpx.HTTPError as error:
            msg = f"the API description of a service cannot be fetched ({public_reason(error)}); try again"
            raise UnavailableError(msg, headers={"Retry-After": "2"}) from error

    async def statuses(self) -> list[ProcessStatus]:
        """Return the status of every process, in the order in which a tune passes them."""
        return await asyncio.gather(*(self._status(name, self._processes[name]) for name in _TASKS if name in self._processes))

    async def _status(self, name: str, url: str) -> ProcessStatus:
        try:
            answer = await self._client.get(f"{url}/ready")
            problems: dict[str, str] = answer.json()["problems"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return ProcessStatus(name, _TASKS[name], ready=False, problem=f"does not answer ({type(error).__name__})")
        return ProcessStatus(name, _TASKS[name], ready=answer.is_success, problem="; ".join(problems.values()))
