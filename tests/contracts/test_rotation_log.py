"""One suite for where rotations are kept: durable steps, one leader, requests that are told once."""

import contextlib
from dataclasses import replace

import msgspec
import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.memory_rotation_log import MemoryRotationLog

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import Rotation, RotationLimits, RotationState, Trigger
from leasehold_broker.domain.rotation_transitions import Identified, after
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.flows.rotation_events import started, stepped
from leasehold_broker.ports.rotation_log import RotationRequest

NOW = 1_795_000_000_000


class InMemory:
    """The fake that other tests use."""

    def __init__(self, _folder):
        """Start empty."""
        self.log = MemoryRotationLog()

    async def again(self):
        """Nothing is lost in memory."""

    async def events(self):
        """Types, in order."""
        return [event.type.value for event in self.log.events]

    async def close(self):
        """Nothing is open."""


class InFile:
    """The collector's file."""

    def __init__(self, folder):
        """Open it."""
        self._folder, self._lives = folder, 0
        self._open()

    def _open(self):
        self._lives += 1
        self._store = CollectorStore(self._folder / "collector.db", "centre", f"life-{self._lives}")
        self.log = self._store.rotations

    async def again(self):
        """Close and open."""
        await self._store.close()
        self._open()

    async def events(self):
        """Types, in order."""
        page = await self._store.page(EventFilter(), 0, 100)
        return [msgspec.json.decode(stored.record.body)["type"] for stored in page]

    async def close(self):
        """Let go."""
        await self._store.close()


class InPostgres:
    """A schema that replicas share."""

    def __init__(self, engine):
        """Not open yet."""
        self._engine, self._lives = engine, 0

    async def open(self):
        """Open it."""
        self._lives += 1
        self._life = contextlib.AsyncExitStack()
        self._store = await self._life.enter_async_context(self._engine.open(f"life-{self._lives}"))
        self.log = self._store.rotations
        return self

    async def again(self):
        """Close and open."""
        await self._life.aclose()
        await self.open()

    async def events(self):
        """Types, in order."""
        page = await self._store.page(EventFilter(), 0, 100)
        return [msgspec.json.decode(stored.record.body)["type"] for stored in page]

    async def close(self):
        """Let go."""
        await self._life.aclose()


@pytest.fixture(params=["memory", "file", "postgres"])
async def kept(request, tmp_path):
    """A place of each kind."""
    if request.param == "postgres":
        kept = await InPostgres(PostgresEngine(request.getfixturevalue("postgres"))).open()
    else:
        kept = InMemory(tmp_path) if request.param == "memory" else InFile(tmp_path)
    yield kept
    await kept.close()


def at(seconds):
    """A moment of the boot clock; the wall clock goes backwards meanwhile, which must not matter."""
    return Instant(NOW - round(seconds * 1000), round(seconds * NANOS))


def rotation(number, key="openai-prod", by="dora"):
    """A new one."""
    return Rotation(f"{number:032x}", key, "prod", Trigger.OPERATOR, by, RotationState.PLANNED, NOW, NOW)


async def asked(kept, wanted, request_id):
    """What the wish became."""
    return await kept.log.request(RotationRequest(wanted, request_id), lambda new: started(new, None, request_id))


async def moved(kept, lead, before, key_id="key-1"):
    """One step further."""
    next_ = after(before, Identified(key_id), 0.0, RotationLimits(), NOW + 1)
    await kept.log.advance(lead, before, next_, stepped(before, next_, NOW + 1))
    return next_


async def test_a_step_is_durable_with_its_event(kept):
    """What was requested and stepped is there after a restart, with one event each."""
    first = await asked(kept, rotation(1), "a")
    lead = await kept.log.take_lead("one", 15, at(0))
    second = await moved(kept, lead, first)
    await kept.again()
    assert await kept.log.open_rotations() == [second]
    assert await kept.log.find_rotation(first.id) == second
    assert await kept.log.find_rotation("f" * 32) is None
    assert await kept.events() == ["key.rotation_started", "key.rotation_stepped"]


async def test_time_that_passed_is_kept_without_an_event(kept):
    """How long a state has lasted survives a restart, and says nothing in the log."""
    first = await asked(kept, rotation(1), "a")
    lead = await kept.log.take_lead("one", 15, at(0))
    later = replace(first, waited_ms=7_000)
    await kept.log.advance(lead, first, later, None)
    await kept.again()
    assert await kept.log.open_rotations() == [later]
    assert await kept.events() == ["key.rotation_started"]


async def test_a_request_is_told_once(kept):
    """The same id by the same asker is the same rotation; for another key it is refused; others' ids do not matter."""
    first = await asked(kept, rotation(1), "a")
    assert await asked(kept, rotation(2), "a") == first
    with pytest.raises(Refusal) as caught:
        await asked(kept, rotation(3, "gemini-prod"), "a")
    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    other = await asked(kept, rotation(4, "gemini-prod", by="eve"), "a")
    assert [each.id for each in await kept.log.open_rotations()] == [first.id, other.id]


async def test_a_wish_joins_what_has_not_promoted_and_waits_behind_what_has(kept):
    """Before promotion one rotation serves all wishes; after it a new wish is a rotation of its own."""
    first = await asked(kept, rotation(1), "a")
    assert await asked(kept, rotation(2), "b") == first
    lead = await kept.log.take_lead("one", 15, at(0))
    before = await moved(kept, lead, first)
    draining = replace(before, state=RotationState.DRAINING, version=2)
    await kept.log.advance(lead, before, draining, stepped(before, draining, NOW))
    second = await asked(kept, rotation(3), "c")
    assert second.id == rotation(3).id
    assert await asked(kept, rotation(4), "b") == draining
    assert [each.id for each in await kept.log.last_rotations("openai-prod", 5)] == [second.id, first.id]
    assert await kept.log.last_rotations("openai-prod", 5, second.id) == [draining]
    assert await kept.log.last_rotations("gemini-prod", 5) == []


async def test_what_is_over_is_open_no_more(kept):
    """A rotation that is done is found, but not among those to be driven."""
    first = await asked(kept, rotation(1), "a")
    lead = await kept.log.take_lead("one", 15, at(0))
    over = replace(first, state=RotationState.FAILED, why="no")
    await kept.log.advance(lead, first, over, stepped(first, over, NOW))
    assert list(await kept.log.open_rotations()) == []
    assert await kept.log.find_rotation(first.id) == over


async def test_one_leads_and_is_fenced_when_another_does(kept):
    """A second holder gets the lead only when it has seen the first not go on for so long; then the first is fenced."""
    first = await asked(kept, rotation(1), "a")
    one = await kept.log.take_lead("one", 15, at(0))
    assert await kept.log.take_lead("two", 15, at(100)) is None
    assert await kept.log.take_lead("two", 15, at(114.9)) is None
    assert await kept.log.take_lead("one", 15, at(0)) == one
    assert await kept.log.take_lead("two", 15, at(115.1)) is None
    assert await kept.log.take_lead("two", 15, at(130)) is None
    two = await kept.log.take_lead("two", 15, at(130.1))
    assert two.fence > one.fence
    assert await kept.log.take_lead("one", 15, at(1)) is None
    with pytest.raises(Refusal) as caught:
        await moved(kept, one, first)
    assert caught.value.reason is Reason.CONCURRENT_UPDATE
    assert await kept.log.find_rotation(first.id) == first
    assert (await moved(kept, two, first)).state is RotationState.MINTING
    assert await kept.events() == ["key.rotation_started", "key.rotation_stepped"]


async def test_a_step_from_a_state_that_is_gone_is_refused(kept):
    """Two steps from the same state: the second one changes nothing, and leaves no event."""
    first = await asked(kept, rotation(1), "a")
    lead = await kept.log.take_lead("one", 15, at(0))
    second = await moved(kept, lead, first)
    with pytest.raises(Refusal) as caught:
        await moved(kept, lead, first, "other")
    assert caught.value.reason is Reason.CONCURRENT_UPDATE
    assert await kept.log.find_rotation(first.id) == second
    assert len(await kept.events()) == 2
