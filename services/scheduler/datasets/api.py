"""The dataset API over HTTP."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.datasets import repository
from services.scheduler.datasets.schemas import MAX_VERSION, DatasetAnswer, DatasetBody, DatasetList, DatasetTune
from shared.database.sessions import Database
from shared.database.tables import Context, Dataset
from shared.errors import ChangedError, InvalidError, NotFoundError
from shared.http.auth import Principal, require
from shared.http.idempotency import Once
from shared.http.routes import GuardedRoute
from shared.ids import new_id
from shared.states import TuneState, client_status

Caller = Annotated[Principal, Depends(require("tunes"))]
_VERSION = re.compile(r'"?([0-9]{1,10})"?')


def router(database: Database) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/v1/datasets", tags=["tunes"], route_class=GuardedRoute)

    @routes.post("", status_code=201, summary="Keep images, captions and settings for a tune that is being prepared")
    async def create(caller: Caller, once: Once, body: DatasetBody) -> DatasetAnswer:
        async def work(session: AsyncSession) -> DatasetAnswer:
            made = await repository.create(session, caller.account_id, new_id("dataset"), body.model_dump())
            return (await _answers(session, caller, [made]))[0]

        return await once.run(database, Context.TUNES, caller, work)

    @routes.get("", summary="The account's datasets, the last changed first")
    async def list_(
        caller: Caller,
        *,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
    ) -> DatasetList:
        async with database.begin() as session:
            found, total = await repository.page(session, caller.account_id, offset=offset, limit=limit)
            data = await _answers(session, caller, list(found))
        return DatasetList(data=data, has_more=offset + len(data) < total, total=total)

    @routes.get("/{dataset_id}", summary="A dataset")
    async def get(caller: Caller, dataset_id: str) -> DatasetAnswer:
        async with database.begin() as session:
            return (await _answers(session, caller, [await _own(session, caller, dataset_id)]))[0]

    @routes.put(
        "/{dataset_id}",
        summary="Change a dataset, if it still has the version that the change was made on",
        responses={412: {"description": "The dataset has another version: read it, and make the change on that."}},
    )
    async def change(
        caller: Caller,
        dataset_id: str,
        body: DatasetBody,
        if_match: Annotated[str, Header(description="The `version` that the change was made on.")],
    ) -> DatasetAnswer:
        version = _version(if_match)
        async with database.begin() as session:
            changed = await repository.change(session, caller.account_id, dataset_id, version, body.model_dump())
            if changed is None:
                now = (await _own(session, caller, dataset_id)).version
                msg = f"If-Match: the dataset has version {now}, and the change was made on {version}; read it again"
                raise ChangedError(msg)
            return (await _answers(session, caller, [changed]))[0]

    @routes.delete("/{dataset_id}", status_code=204, summary="Delete a dataset; its images and tunes stay")
    async def delete(caller: Caller, dataset_id: str) -> None:
        async with database.begin() as session:
            if not await repository.remove(session, caller.account_id, dataset_id):
                raise _not_found(dataset_id)

    return routes


def _version(if_match: str) -> int:
    given = _VERSION.fullmatch(if_match)
    version = int(given[1]) if given else 0
    if not 1 <= version <= MAX_VERSION:
        msg = f"If-Match: {if_match!r} is no version of a dataset; send the `version` that it had when it was read"
        raise InvalidError(msg, loc=("header", "If-Match"))
    return version


async def _own(session: AsyncSession, caller: Principal, dataset_id: str) -> Dataset:
    found = await repository.find(session, caller.account_id, dataset_id)
    if found is None:
        raise _not_found(dataset_id)
    return found


def _not_found(dataset_id: str) -> NotFoundError:
    return NotFoundError(f"there is no dataset {dataset_id!r} in this account")


async def _answers(session: AsyncSession, caller: Principal, datasets: list[Dataset]) -> list[DatasetAnswer]:
    tunes = await repository.tunes_of(session, caller.account_id, [dataset.id for dataset in datasets])
    return [
        DatasetAnswer(
            id=dataset.id,
            name=dataset.name,
            trigger_word=dataset.trigger_word,
            subject_class=dataset.subject_class,
            files=dataset.files,  # pyright: ignore[reportArgumentType] - pydantic reads them from their JSON
            settings=dataset.settings,
            version=dataset.version,
            created_at=dataset.created_at,
            updated_at=dataset.updated_at,
            tunes=[
                DatasetTune(id=tune.id, name=tune.name, status=client_status(TuneState(tune.state), tune.lease_epoch))
                for tune in tunes[dataset.id]
            ],
        )
        for dataset in datasets
    ]
