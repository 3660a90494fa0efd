"""What every engine's register of sidecars promises, asked of the file and of PostgreSQL."""

from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport
from leasehold_broker.ports.sidecar_register import SidecarBan

BAN = SidecarBan("sidecar-1", "node taken over", "alice", 5)


def event(kind):
    """The event of a change."""
    return Event(kind, 5, Outcome.ALLOWED, details={"sidecar": "sidecar-1"})


async def types(store):
    """Of the collector's own events."""
    return [one.type for one in await store.page(EventFilter(stream=store.stream), 0, 50)]


async def test_a_ban_is_durable_with_its_event_and_the_first_stays(engine):
    """A second ban changes and tells nothing."""
    async with engine.open("c1") as first:
        assert await first.register.ban(BAN, event(EventType.SIDECAR_BANNED))
        other = SidecarBan("sidecar-1", "again", "bob", 6)
        assert not await first.register.ban(other, event(EventType.SIDECAR_BANNED))
    async with engine.open("c2") as second:
        assert list(await second.register.bans()) == [BAN]
        assert await types(second) == ["sidecar.banned"]


async def test_readmission_ends_a_ban_once(engine):
    """Where there is none, nothing is told."""
    async with engine.open() as store:
        assert not await store.register.readmit("sidecar-1", event(EventType.SIDECAR_READMITTED))
        await store.register.ban(BAN, event(EventType.SIDECAR_BANNED))
        assert await store.register.readmit("sidecar-1", event(EventType.SIDECAR_READMITTED))
        assert list(await store.register.bans()) == []
        assert await types(store) == ["sidecar.banned", "sidecar.readmitted"]


async def test_a_forgotten_sidecar_is_not_known_and_stays_banned(engine):
    """What is known of it goes, its ban stays."""
    async with engine.open() as store:
        assert not await store.register.knows("sidecar-1")
        await store.heard([SidecarReport(KnownSidecar("sidecar-1", "prod", "1", 0, 77, 9000))])
        assert await store.register.knows("sidecar-1")
        await store.register.ban(BAN, event(EventType.SIDECAR_BANNED))
        assert await store.register.forget("sidecar-1", event(EventType.SIDECAR_EVICTED))
        assert not await store.register.forget("sidecar-1", event(EventType.SIDECAR_EVICTED))
        assert list(await store.sidecars()) == []
        assert not await store.register.knows("sidecar-1")
        assert list(await store.register.bans()) == [BAN]
        assert await types(store) == ["sidecar.banned", "sidecar.evicted"]
