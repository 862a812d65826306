"""Which blobs are still needed: one query over every table that refers to blobs, of any context."""

from collections.abc import Collection

from sqlalchemy import String, Text, bindparam, cast, func, literal, select, true, union
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Asset, Checkpoint, Generation, Sample, Tune, TuneFile


async def referenced(session: AsyncSession, keys: Collection[str]) -> set[str]:
    """Return those of the keys that are still needed.

    A tune needs its images, base, checkpoints and LoRA until it has ended, and a generation needs its inputs until it has
    finished, even when the assets that they came from were deleted. Samples are needed as long as their rows exist.

    The images that came with a group's request are needed as long as one of the group is starred. What a starred generation has
    alone is committed, and is not asked for here.
    """
    wanted = bindparam("keys", list(keys), ARRAY(Text))
    is_wanted = func.any(wanted)
    alive = Tune.ended_at.is_(None)
    # The inputs are a document that may refer to blobs at any depth.
    inside = func.jsonb_path_query(Generation.inputs, cast(literal("$.**"), JSONPATH)).alias("inside")
    text_inside = inside.column.op("#>>", return_type=String())(cast(literal("{}"), ARRAY(Text)))
    queries = [
        select(Asset.blob_key.label("key")).where(Asset.blob_key == is_wanted, Asset.status == "ready"),
        select(Asset.original_key).where(Asset.original_key == is_wanted, Asset.status == "ready"),
        select(Asset.thumbnail_key).where(Asset.thumbnail_key == is_wanted, Asset.status == "ready"),
        select(Asset.staging_key).where(Asset.staging_key == is_wanted, Asset.status.in_(["ready_to_upload", "uploaded"])),
        select(Tune.base_blob_key).where(Tune.base_blob_key == is_wanted, alive),
        select(Tune.lora_key).where(Tune.lora_key == is_wanted, alive),
        select(TuneFile.blob_key).join(Tune, Tune.id == TuneFile.tune_id).where(TuneFile.blob_key == is_wanted, alive),
        select(Checkpoint.blob_key).join(Tune, Tune.id == Checkpoint.tune_id).where(Checkpoint.blob_key == is_wanted, alive),
        select(Sample.blob_key).where(Sample.blob_key == is_wanted),
        select(text_inside)
        .select_from(Generation)
        .join(inside, true())
        .where(Generation.finished_at.is_(None), text_inside == is_wanted),
        select(text_inside)
        .select_from(Generation)
        .join(inside, true())
        .where(Generation.starred_at.is_not(None), Generation.group_id.is_not(None), text_inside == is_wanted),
    ]
    found = await session.execute(union(*queries))
    return {str(key) for (key,) in found if key is not None}
