"""A consumer outlives an outage of its database, and of its broker, as a member of its group that handles records within seconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from shared.errors import UnavailableError
from shared.settings import ServiceSettings
from tests.support.fault_proxy import FaultProxy
from tests.support.group_world import GroupWorld, eventually, group_world

SECONDS = 20.0
"""How soon everything is handled: a pause, an attempt to connect, and the handling itself."""
EVENTS = 18


@pytest.fixture
async def world(database_url: str, make_settings: Callable[..., ServiceSettings]) -> AsyncIterator[GroupWorld]:
    async with group_world(database_url, make_settings()) as world:
        yield world


async def _begin(fault: str, proxy: FaultProxy) -> None:
    match fault:
        case "down":
            await proxy.down()
        case "stall":
            proxy.stall()
        case "slow":
            proxy.slow(1.0)


async def _outage(world: GroupWorld, fault: str, outage_s: float, **options: float) -> None:
    """Let an outage of the database pass over two replicas that have work, and check that they are at it again within seconds."""
    async with world.replica(**options) as one, world.replica(**options) as other:
        await world.has_members(2)
        before = await world.members()
        await world.publish(EVENTS)
        await world.all_handled()

        await _begin(fault, world.database)
        await world.publish(EVENTS)
        await asyncio.sleep(outage_s)
        await one.alive()
        await other.alive()
        await world.database.heal()
        await world.all_handled(SECONDS)
        await world.publish(EVENTS)
        await world.all_handled(SECONDS)

        assert await world.members() == before, "no replica has left its group, and none is in it twice"
    await world.has_members(0, within_s=5)


@pytest.mark.parametrize("fault", ["down", "stall", "slow"])
async def test_a_database_outage_past_the_bound_of_an_attempt(world: GroupWorld, fault: str) -> None:
    await _outage(world, fault, 6, transaction_s=1.0)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", ["down", "stall", "slow"])
async def test_a_database_outage_of_a_minute(world: GroupWorld, fault: str) -> None:
    await _outage(world, fault, 60)


async def test_connections_that_stay_silent_are_replaced(world: GroupWorld) -> None:
    async with world.replica(transaction_s=2.0):
        await world.publish(EVENTS)
        await world.all_handled()

        world.database.strand()
        await world.publish(EVENTS)

        await world.all_handled(SECONDS)


@pytest.mark.parametrize("fault", ["down", "stall", "slow"])
async def test_a_broker_outage_leaves_one_member_a_replica(world: GroupWorld, fault: str) -> None:
    async with world.replica() as replica:
        await world.publish(EVENTS)
        await world.all_handled()

        await _begin(fault, world.kafka)
        await world.publish(EVENTS)
        await asyncio.sleep(12)
        await replica.alive()
        await world.kafka.heal()

        await world.all_handled(2 * SECONDS)
        # The broker forgets a member that could not say that it leaves within its session's ten seconds.
        await world.has_members(1, within_s=20)


async def test_connections_to_the_broker_that_are_cut_are_made_again(world: GroupWorld) -> None:
    async with world.replica():
        for _ in range(3):
            await world.publish(EVENTS)
            await world.all_handled(2 * SECONDS)
            world.kafka.cut()


@pytest.mark.parametrize("dependency", ["database", "kafka"])
async def test_a_consumer_ends_in_bounded_time_while_a_dependency_is_silent(world: GroupWorld, dependency: str) -> None:
    async with world.replica():
        await world.publish(EVENTS)
        await world.all_handled()
        (world.database if dependency == "database" else world.kafka).stall()
        await world.publish(EVENTS)
        began = time.monotonic()
    took_s = time.monotonic() - began

    assert took_s < 15
    await world.has_members(0, within_s=20)


async def _storm(world: GroupWorld, rebalances: int) -> None:
    """Let a second replica come and go while events are handled."""
    async with world.replica() as steady:
        for _ in range(rebalances):
            await world.publish(EVENTS)
            async with world.replica():
                await world.has_members(2)
            await world.has_members(1)
        # The rebalances leave hardly any time to handle events, so nearly all are left; a busy machine handles ten a second.
        await world.all_handled(60 + rebalances * EVENTS / 5)
        await steady.alive()


async def test_a_consumer_goes_on_after_a_storm_of_rebalances(world: GroupWorld) -> None:
    await _storm(world, 4)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_consumer_goes_on_after_a_long_storm_of_rebalances(world: GroupWorld) -> None:
    await _storm(world, 50)


async def test_one_that_waits_for_room_stays_a_member_and_is_alive(
    world: GroupWorld, make_settings: Callable[..., ServiceSettings]
) -> None:
    async with world.replica() as replica:
        await world.publish(1)
        await world.all_handled()
        before = await world.members()
        world.gate.clear()
        await world.publish(EVENTS)
        began = replica.last_poll_age_s()
        await asyncio.sleep(3)

        assert replica.last_poll_age_s() < began + 2, "it still polls"
        await replica.alive()
        assert await world.members() == before
        world.gate.set()
        await world.all_handled()


async def test_a_replica_without_polls_is_not_alive(world: GroupWorld) -> None:
    async with world.replica() as replica:
        await world.publish(1)
        await world.all_handled()
    replica._settings = replica._settings.model_copy(update={"consumer_silence_s": 0.5})

    async def is_dead() -> bool:
        try:
            await replica.alive()
        except UnavailableError as error:
            return "was last polled" in error.message
        return False

    await eventually(is_dead, "its health says so", 5)
