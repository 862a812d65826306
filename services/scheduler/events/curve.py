"""What a tune's events add up to: its loss at each step, and its samples."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.events import repository
from services.scheduler.events.schemas import Losses, SampleAnswer, SampleList
from services.scheduler.events.service import EventReader
from shared.database.tables import TuneEvent
from shared.messaging.events import TuneProgressed, TuneSampled, TuneStarted


async def losses(session: AsyncSession, tune_id: str, *, after: int) -> Losses:
    """Return the losses of the steps after this one."""
    sequence = await repository.last_sequence(session, tune_id)
    found = await repository.events_of_types(session, tune_id, [TuneProgressed.type, TuneStarted.type])
    by_step, resumed_at = add_up(found)
    steps = [step for step in by_step if step > after]
    first, last = min(steps, default=after + 1), max(steps, default=after)
    return Losses(
        first_step=first,
        losses=[by_step.get(step) for step in range(first, last + 1)],
        resumed_at=[step for step in resumed_at if step > after],
        sequence=sequence,
    )


def add_up(events: Sequence[TuneEvent]) -> tuple[dict[int, float], list[int]]:
    """Return the loss by step, and the steps that a later attempt resumed from. A repeated step's last loss counts."""
    by_step: dict[int, float] = {}
    resumed_at: list[int] = []
    for event in events:
        step: int = event.data["step"]
        if event.type == TuneStarted.type:
            # Steps that the lost attempt had done after its checkpoint are done again.
            by_step = {done: loss for done, loss in by_step.items() if done <= step}
            if step > 0:
                resumed_at.append(step)
            continue
        reported: list[float] = event.data.get("losses") or []
        first = step - len(reported) + 1
        by_step |= {first + place: loss for place, loss in enumerate(reported)}
    return by_step, resumed_at


async def samples(session: AsyncSession, reader: EventReader, tune_id: str) -> SampleList:
    """Return the samples that still exist. A repeated step's samples replace the earlier ones."""
    sequence = await repository.last_sequence(session, tune_id)
    kept = await repository.sample_keys(session, tune_id)
    found: dict[tuple[int, int], SampleAnswer] = {}
    for event in await repository.events_of_types(session, tune_id, [TuneSampled.type]):
        shown = reader.show(event, kept)
        for sample in shown.data["samples"]:
            if sample["url"] is not None:
                found[shown.data["step"], sample["number"]] = SampleAnswer(step=shown.data["step"], **sample)
    return SampleList(data=[found[place] for place in sorted(found)], sequence=sequence)
