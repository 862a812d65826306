"""Turns rows into answers: with URLs of what is still in the store, and with the models that still exist."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.generations import repository, variants
from services.inference.generations.schemas import (
    GeneratedImage,
    Generation,
    GenerationError,
    Group,
    InputImages,
    Status,
    UsedModel,
)
from services.inference.inputs import ImageRef, Inputs, LoraRef, ModelRef, Result
from shared.blobs.store import Blobs
from shared.database.tables import Generation as Row


class Answers:
    """Builds the answers for generations of one account."""

    def __init__(self, blobs: Blobs, kept_s: float) -> None:
        self._blobs = blobs
        self._kept = timedelta(seconds=kept_s)

    async def show(self, session: AsyncSession, account_id: UUID, rows: Sequence[Row]) -> list[Generation]:
        """Return the answer for each row."""
        inputs = {row.id: Inputs.model_validate(row.inputs) for row in rows}
        results = {row.id: Result.model_validate(row.result) for row in rows if row.result is not None}
        assets = {ref.asset_id for one in inputs.values() for _, ref in _models(one)}
        keys = {key for row in rows for key in [*_sent_keys(inputs[row.id]), *_drawn_keys(results.get(row.id))]}
        exists = await repository.existing_assets(session, assets)
        stored = await repository.existing_blobs(session, keys)
        waiting = any(row.state == "queued" for row in rows)
        ahead = await repository.ahead(session, account_id) if waiting else {}
        return [self._show(row, inputs[row.id], results.get(row.id), exists, stored, ahead.get(row.id)) for row in rows]

    def _show(
        self, row: Row, inputs: Inputs, result: Result | None, exists: set[str], stored: set[str], ahead: int | None
    ) -> Generation:
        group = Group.model_validate(row.grouping) if row.grouping else None
        start, control = inputs.start, inputs.control
        return Generation(
            id=row.id,
            group_id=row.group_id,
            group=group,
            cell=variants.cell(group, row.position),
            engine=row.endpoint or "",
            status=Status(row.state),
            request=row.request or {},
            inputs=InputImages(
                init_image_url=self._input(start and start.image, stored),
                mask_url=self._input(start and start.mask, stored),
                controlnet_image_url=self._input(control and control.image, stored),
            ),
            images=self._images(inputs, result, stored) if result else [],
            notices=result.notices if result else inputs.notices,
            error=GenerationError(code=row.error["code"], message=row.error["message"]) if row.error else None,
            models=[
                UsedModel(
                    name=ref.name,
                    kind=kind,  # pyright: ignore[reportArgumentType] - `_models` names them as the schema does
                    weight=ref.weight if isinstance(ref, LoraRef) else None,
                    sha256=ref.sha256,
                    exists=ref.asset_id in exists,
                )
                for kind, ref in _models(inputs)
            ],
            versions=result.versions if result else {},
            prediction_time_ms=result.prediction_time_ms if result else None,
            ahead=ahead,
            created_at=row.created_at,
            finished_at=row.finished_at,
            kept_until=self.kept_until(row),
            starred=row.starred_at is not None,
        )

    def kept_until(self, row: Row) -> datetime | None:
        """Return when the images are deleted; None before they are there, and with a star."""
        if row.finished_at is None or row.starred_at is not None:
            return None
        return max(row.finished_at, row.unstarred_at or row.finished_at) + self._kept

    def _images(self, inputs: Inputs, result: Result, stored: set[str]) -> list[GeneratedImage]:
        return [
            GeneratedImage(
                number=number,
                seed=image.seed,
                url=self._url(image.key, stored),
                thumbnail_url=self._url(image.thumbnail_key, stored),
                width=inputs.width,
                height=inputs.height,
                removed_for_safety=image.removed_for_safety,
                safety_score=image.safety_score,
            )
            for number, image in enumerate(result.pictures)
        ]

    def _input(self, ref: ImageRef | None, stored: set[str]) -> str | None:
        return self._url(ref.key, stored) if ref else None

    def _url(self, key: str | None, stored: set[str]) -> str | None:
        return self._blobs.presign_get(key) if key in stored else None


def keys_of(row: Row) -> list[str]:
    """Return the keys of the images that a row refers to: those that came with the request, and those that were drawn."""
    return _sent_keys(Inputs.model_validate(row.inputs)) + drawn_keys(row)


def drawn_keys(row: Row) -> list[str]:
    """Return the keys of the images that were drawn, and of their thumbnails."""
    return _drawn_keys(Result.model_validate(row.result) if row.result is not None else None)


def _sent_keys(inputs: Inputs) -> list[str]:
    start, control = inputs.start, inputs.control
    refs = [start and start.image, start and start.mask, control and control.image]
    return [ref.key for ref in refs if ref]


def _drawn_keys(result: Result | None) -> list[str]:
    drawn = result.pictures if result else []
    return [key for image in drawn for key in (image.key, image.thumbnail_key) if key is not None]


def _models(inputs: Inputs) -> list[tuple[str, ModelRef]]:
    found: list[tuple[str, ModelRef | None]] = [
        ("checkpoint", inputs.base),
        *(("lora", ref) for ref in inputs.loras),
        *(("textual_inversion", ref) for ref in inputs.embeddings),
        ("vae", inputs.vae),
        ("controlnet", inputs.control and inputs.control.model),
        ("refiner", inputs.refine and inputs.refine.model),
    ]
    return [(kind, ref) for kind, ref in found if ref is not None]
