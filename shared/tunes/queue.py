"""Which queued tune a trainer claims next. It scales to hundreds of trainers: those that find none take no lock."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_CLAIM_LOCK = 0x636C61696D
"""The advisory lock that makes claims run one after the other: two at once could both pass the limit that each has counted."""

# The first tune of each account, and of these the one to claim: the highest priority, then the account with the fewest running
# tunes, then the oldest. PostgreSQL refuses FOR UPDATE together with GROUP BY, so the caller locks the row afterwards.
_PICK = text("""
    WITH running AS (
        SELECT account_id, count(*) AS tunes FROM tunes
        -- The index has only tunes that have not ended, and PostgreSQL uses it only where the query says so.
        WHERE state IN ('preparing', 'training') AND ended_at IS NULL GROUP BY account_id
    )
    SELECT head.id
    FROM (SELECT DISTINCT account_id FROM tunes WHERE state = 'queued') AS waiting
    LEFT JOIN running USING (account_id)
    CROSS JOIN LATERAL (
        SELECT id, priority, queued_at FROM tunes
        WHERE account_id = waiting.account_id AND state = 'queued' AND cancel_requested_at IS NULL AND id <> ALL(:without)
        ORDER BY priority DESC, queued_at, id LIMIT 1
    ) AS head
    WHERE coalesce(running.tunes, 0) < :running_per_account
    ORDER BY head.priority DESC, coalesce(running.tunes, 0), head.queued_at, head.id
    LIMIT 1
""")


async def pick(session: AsyncSession, *, running_per_account: int, without: Sequence[str]) -> str | None:
    """Return the id of the tune to claim next, but none of `without`; None when no tune may be claimed.

    The transaction then holds the lock of claims until it ends.
    """
    values = {"running_per_account": running_per_account, "without": list(without)}
    # Idle trainers poll: they must not wait for each other's lock only to find that there is nothing to claim.
    if await session.scalar(_PICK, values) is None:
        return None
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIM_LOCK})
    return await session.scalar(_PICK, values)
