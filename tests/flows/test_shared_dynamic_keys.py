"""Credentials of a secret engine that calls share: made once, replaced before they end, revoked once unused."""

import asyncio

import pytest
from tests.fakes.core import PEER, identity
from tests.fakes.engine_house import API, House, settle
from tests.fakes.memory_engine import OPEN, READ

from leasehold_broker.domain.lease import Mode
from leasehold_broker.flows import dynamic_keys


@pytest.fixture
async def house():
    """One, living."""
    house = House()
    await house.life()
    return house


async def test_calls_share_one(house):
    """A hundred calls at once make the engine answer once; the credential goes with each."""
    house.engine.gate = asyncio.Event()
    asked = [asyncio.create_task(house.core.dynamic.secret(API)) for _ in range(100)]
    await settle()
    house.engine.gate.set()
    assert len({(await each).reveal() for each in asked}) == 1
    assert house.engine.asked == [OPEN, READ]
    await settle()
    assert house.events("key.minted")[0].lease == ""


async def test_a_shared_one_is_revoked_when_nothing_needs_it(house):
    """While a lease names its key it stays, used or not; a minute after the last one it is revoked."""
    issued = await house.acquire("own-api", Mode.BROKERED)
    await house.core.dynamic.secret(API)
    for _ in range(20):
        house.clock.advance(20)
        await house.look()
    assert len(house.engine.living()) == 1
    await house.core.release.run(identity(), PEER, issued.lease.name)
    for _ in range(7):
        house.clock.advance(20)
        await house.look()
    assert house.engine.living() == []
    assert house.disk.engine_leases == {}


async def test_a_shared_one_is_replaced_before_it_ends(house):
    """At the engine's longest life calls get the next one, without a gap; the old one is left to calls under way."""
    house.engine.longest_seconds = 400
    first = await house.core.dynamic.secret(API)
    await house.acquire("own-api", Mode.BROKERED)
    for _ in range(39):
        house.clock.advance(10)
        await house.look()
        value = (await house.core.dynamic.secret(API)).reveal().decode()
        assert house.engine.alive(value)
    assert value != first.reveal().decode()
    for _ in range(5):
        house.clock.advance(10)
        await house.look()
        await house.core.dynamic.secret(API)
    assert len(house.engine.living()) == 1
    assert len(house.disk.engine_leases) == 1


async def test_one_that_its_provider_refuses_is_revoked(house):
    """Forgotten: the next call gets another, the old one is dead. A young one is kept, however often it is refused."""
    first = await house.core.dynamic.secret(API)
    for _ in range(100):
        house.core.dynamic.forget(API)
    assert await house.core.dynamic.secret(API) == first
    house.clock.advance(30)
    house.core.dynamic.forget(API)
    second = await house.core.dynamic.secret(API)
    await house.look()
    assert house.engine.living() == [second.reveal().decode()]
    assert first != second


async def test_a_stop_revokes_what_is_shared_and_leaves_what_was_handed_out(house):
    """A clean stop ends what only calls used; a killed life's is revoked by the next."""
    handed = await house.acquire()
    await house.core.dynamic.secret(API)
    await settle()
    await house.core.dynamic.drain()
    assert house.engine.living() == [handed.token.reveal().decode()]
    await house.core.dynamic.secret(API)
    await settle()
    house.store.crash()
    await house.life()
    await house.look()
    assert house.engine.living() == [handed.token.reveal().decode()]


async def test_a_stop_waits_for_no_engine(house, monkeypatch):
    """An engine that hangs holds up no stop, and nothing is written behind its last event; the next life revokes."""
    monkeypatch.setattr(dynamic_keys, "DRAIN_SECONDS", 0.01)
    await house.core.dynamic.secret(API)
    await settle()
    house.engine.gate = asyncio.Event()
    await house.core.dynamic.drain()
    written = len(house.disk.events)
    house.engine.gate.set()
    await settle()
    assert len(house.disk.events) == written
    house.store.crash()
    await house.life()
    await house.look()
    assert house.engine.living() == []
