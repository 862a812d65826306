"""What the broker knows of a consumer group."""

from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from shared.settings import ServiceSettings


async def members(settings: ServiceSettings, group: str) -> set[str]:
    """Return the ids of the group's members."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        # The first group of a broker's life waits until the topic of offsets is there.
        try:
            [answer] = await admin.describe_consumer_groups([group])
        except GroupCoordinatorNotAvailableError:
            return set()
        described: list[Any] = answer.to_object()["groups"]
        return {member["member_id"] for found in described for member in found["members"]}
    finally:
        await admin.close()
