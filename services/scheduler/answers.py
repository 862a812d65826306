"""Answers about tunes, built from their rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.scheduler.repository import PLATFORM_PREFIX
from services.scheduler.schemas import OPTIONS, Phase, Progress, Queue, Result, TuneAnswer, Warning_
from shared.database.tables import Tune, TuneFile
from shared.formats.clip.words import contains
from shared.states import TuneState, client_status

_PHASES: dict[TuneState, Phase] = {
    TuneState.WAITING_FILES: "files",
    TuneState.QUEUED: "queue",
    TuneState.PREPARING: "loading",
    TuneState.TRAINING: "training",
    TuneState.PUBLISHING: "saving",
}
_MOST_QUOTED = 200


@dataclass(frozen=True)
class Surroundings:
    """What an answer says about a tune that is not in its own rows."""

    ahead: int = 0
    """The tunes that were queued before it."""
    has_trainer: bool = True
    thumbnail_urls: Sequence[str] = ()


def answer(tune: Tune, files: Sequence[TuneFile], around: Surroundings) -> TuneAnswer:
    """Return the answer for a tune and its files."""
    return TuneAnswer(
        id=tune.id,
        tenant_id=tune.account_id,
        name=tune.name,
        description=tune.description,
        tune_type="lora_tune",
        details={
            # OctoAI's clients choose the type of `details` by this field, and cannot read the answer without it.
            "tune_type": "lora_tune",
            "base_checkpoint": {
                "checkpoint_id": tune.base_asset_id,
                "engine": tune.engine,
                # The asset's name, as the asset itself shows it.
                "name": tune.base_name.removeprefix(PLATFORM_PREFIX),
            },
            "files": [
                {"file_id": file.asset_id, "caption": file.caption, "regularization": file.regularization} for file in files
            ],
            "steps": tune.steps,
            "seed": tune.seed,
            "trigger_words": [tune.trigger_word],
            "resize_images": tune.resize_images,
            **{option: tune.parameters.get(option) for option in OPTIONS},
        },
        status=client_status(TuneState(tune.state), tune.lease_epoch),
        status_details=tune.status_details,
        output_lora_ids=[tune.lora_asset_id] if tune.lora_asset_id else [],
        result=_result(tune, files),
        created_at=tune.created_at,
        updated_at=tune.updated_at,
        succeeded_at=tune.succeeded_at,
        deleted_at=tune.deleted_at,
        progress=_progress(tune),
        warnings=caption_warnings(
            ((file.asset_id, file.caption) for file in files if not file.regularization), tune.trigger_word
        ),
        webhook=tune.webhook,
        webhook_events_filter=tune.webhook_events,  # pyright: ignore[reportArgumentType] - `CreateTune` has checked them
        sequence=tune.version,
        phase=_PHASES.get(TuneState(tune.state), "ended"),
        error_code=tune.error_code,
        queue=_queue(tune, files, around),
        attempt=tune.attempt,
        max_attempts=tune.max_attempts,
        started_at=tune.started_at,
        ended_at=tune.ended_at,
        dataset_id=tune.dataset_id,
        thumbnail_urls=list(around.thumbnail_urls),
    )


def _queue(tune: Tune, files: Sequence[TuneFile], around: Surroundings) -> Queue | None:
    if tune.state not in {TuneState.WAITING_FILES, TuneState.QUEUED}:
        return None
    unchecked = sum(file.verdict == "pending" for file in files)
    if tune.state == TuneState.WAITING_FILES:
        return Queue(reason="files", ahead=0, files_unchecked=unchecked)
    return Queue(reason="ahead" if around.has_trainer else "no_trainer", ahead=around.ahead, files_unchecked=unchecked)


def _result(tune: Tune, files: Sequence[TuneFile]) -> Result | None:
    """Return the result once the tune has succeeded or failed, or as soon as one of its files is left out."""
    waiting = tune.state == TuneState.WAITING_FILES
    left_out = any(file.verdict == "rejected" or (file.verdict == "pending" and not waiting) for file in files)
    if tune.state not in {TuneState.SUCCEEDED, TuneState.FAILED} and not left_out:
        return None
    by_verdict = {verdict: [f.asset_id for f in files if f.verdict == verdict] for verdict in ("ready", "rejected", "pending")}
    return Result(
        number_of_available_assets=len(by_verdict["ready"]),
        output_assets=[tune.lora_asset_id] if tune.lora_asset_id else [],
        rejected_assets=by_verdict["rejected"],
        unready_assets=by_verdict["pending"],
    )


def _progress(tune: Tune) -> Progress | None:
    if tune.lease_epoch == 0:
        return None
    speed = tune.steps_per_second if tune.state == TuneState.TRAINING else None
    return Progress(
        step=tune.step,
        steps=tune.steps,
        loss=tune.loss,
        steps_per_second=tune.steps_per_second,
        eta_seconds=round((tune.steps - tune.step) / speed, 1) if speed else None,
    )


def caption_warnings(captions: Iterable[tuple[str, str]], trigger_word: str) -> list[Warning_]:
    """Return a warning for each (file, caption) without the trigger word: such an image does not teach the word."""
    return [
        Warning_(
            code="caption_without_trigger_word",
            message=f"the caption {caption[:_MOST_QUOTED]!r} does not contain the trigger word {trigger_word!r}",
            file_id=file_id,
        )
        for file_id, caption in captions
        if not contains(caption, trigger_word)
    ]
