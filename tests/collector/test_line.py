"""One connection for both streams of a sidecar: what it outlives, and what it does not."""

import asyncio

import pytest
from tests.fakes.centre import Centre, Sidecar, eventually
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.collector_link.line import Lines
from leasehold_broker.adapters.collector_link.link import SHIP, SYNC
from leasehold_broker.adapters.collector_link.settings import LinkSettings
from leasehold_broker.adapters.collector_link.streams import LinkBrokenError
from leasehold_broker.domain.reasons import Reason


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The target of every channel that is opened."""
    real, found = LinkSettings.channel, []

    async def channel(settings: LinkSettings):
        found.append(settings.target)
        return await real(settings)

    monkeypatch.setattr(LinkSettings, "channel", channel)
    return found


def speaks(sidecar: Sidecar) -> bool:
    """It has authority."""
    return sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None


async def test_both_streams_share_one_connection_over_every_restart(tmp_path, opened):
    """Events arrive and authority is earned over one channel, and over one new one for each life of the collector."""
    sidecar = Sidecar(f"unix:{tmp_path / 'collector.sock'}")
    async with asyncio.timeout(240):
        async with Centre(tmp_path, "c1"):
            async with sidecar:
                sidecar.emit(3)
                await sidecar.outbox.empty()
                await eventually(lambda: speaks(sidecar))
                assert len(opened) == 1
            assert sidecar.link.counters.connects == {SYNC: 1, SHIP: 1}
        opened.clear()
        async with Centre(tmp_path, "c2"), sidecar:
            sidecar.emit(3)
            await sidecar.outbox.empty()
            await eventually(lambda: speaks(sidecar))
            assert len(opened) == 1


async def test_records_that_are_refused_leave_the_other_stream_alone(tmp_path, opened):
    """What the collector says of the events says nothing of the connection: revocations go on arriving over it."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240), Sidecar(centre.target) as sidecar:
        await eventually(lambda: speaks(sidecar))
        sidecar.outbox.put(*Emitter("sidecar-2").calls(1))
        await eventually(lambda: sidecar.link.counters.failures.get(Reason.SIDECAR_BANNED, 0) >= 3)
        assert sidecar.link.counters.connects[SYNC] == 1
        assert len(opened) == 1


class Channel:
    """Nothing goes over it."""

    def __init__(self) -> None:
        """Open."""
        self.closed = 0

    async def close(self) -> None:
        """Once."""
        self.closed += 1


async def test_a_line_is_over_for_both_and_closed_with_the_last():
    """Whoever is on it leaves when it ends; the next one gets another; a stream's own fault is its own."""
    made: list[Channel] = []

    async def connect():
        made.append(Channel())
        return made[-1]

    lines = Lines(connect)
    left = asyncio.Event()

    async def stays() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def breaks() -> None:
        raise LinkBrokenError("silent")

    async with lines.line() as one, lines.line() as same:
        assert same is one
        assert one.shared
        staying = asyncio.create_task(one.carry(stays()))
        with pytest.raises(LinkBrokenError):
            await same.carry(breaks())
        assert not one.over
        same.end()
        await staying
        assert left.is_set()
        assert made[0].closed == 0
        async with lines.line() as other:
            assert other is not one
            assert not other.shared
    assert [channel.closed for channel in made] == [1, 1]


async def test_a_stream_that_is_cancelled_leaves_nothing_behind():
    """A link that is stopped waits for the end of what it carried."""

    async def connect():
        return Channel()

    lines, left = Lines(connect), asyncio.Event()

    async def stays() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def use() -> None:
        async with lines.line() as line:
            await line.carry(stays())

    using = asyncio.create_task(use())
    await asyncio.sleep(0.01)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert left.is_set()
