"""Reports of many sidecars in few writes: each is durable before its sidecar is acknowledged, and none is lost."""

import asyncio

import pytest

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.flows.keep_reports import REPORTS_MAX, KeepReports
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport


class SlowLog:
    """Writes when it may."""

    def __init__(self) -> None:
        """Nothing written."""
        self.writes: list[list[SidecarReport]] = []
        self.begun = asyncio.Event()
        self.may = asyncio.Event()
        self.faults: list[BaseException] = []

    async def heard(self, reports) -> None:
        """As the port says."""
        self.begun.set()
        await self.may.wait()
        if self.faults:
            raise self.faults.pop()
        self.writes.append(list(reports))

    def names(self) -> list[list[str]]:
        """Who was in which write."""
        return [[report.sidecar.name for report in write] for write in self.writes]


def known(name: str) -> KnownSidecar:
    """A sidecar."""
    return KnownSidecar(name, "prod", "1", 1, 1)


async def test_who_comes_while_a_write_is_on_its_way_shares_the_next():
    """The first is written by itself; a hundred that come meanwhile are one write, and none is told before it."""
    log = SlowLog()
    keep = KeepReports(log)
    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        first = group.create_task(keep.run(known("first"), [AppliedRevocation(1, 2, 3)]))
        await log.begun.wait()
        others = [group.create_task(keep.run(known(f"s{number}"), ())) for number in range(100)]
        while len(keep._waiting) < len(others):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in (first, *others))
        log.may.set()
    assert log.names() == [["first"], [f"s{number}" for number in range(100)]]
    assert log.writes[0][0].applied == [AppliedRevocation(1, 2, 3)]


async def test_a_write_is_bounded():
    """More than fit one are several, in order."""
    log = SlowLog()
    log.may.set()
    keep = KeepReports(log)
    names = [f"s{number}" for number in range(REPORTS_MAX + 1)]
    await asyncio.gather(*(keep.run(known(name), ()) for name in names))
    assert log.names() == [names[:REPORTS_MAX], names[REPORTS_MAX:]]


async def test_a_write_that_fails_is_told_to_those_in_it_alone():
    """They are not acknowledged; who comes later is written."""
    log = SlowLog()
    log.faults = [Refusal(Reason.STORE_UNAVAILABLE, "full")]
    log.may.set()
    keep = KeepReports(log)
    with pytest.raises(Refusal, match="full"):
        await keep.run(known("first"), ())
    await keep.run(known("second"), ())
    assert log.names() == [["second"]]


async def test_one_that_goes_away_disturbs_nobody():
    """Its session is over while the write is on its way; the others are told."""
    log = SlowLog()
    keep = KeepReports(log)
    async with asyncio.timeout(240):
        gone = asyncio.create_task(keep.run(known("gone"), ()))
        await log.begun.wait()
        stays = asyncio.create_task(keep.run(known("stays"), ()))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        log.may.set()
        await stays
    assert log.names() == [["gone"], ["stays"]]


async def test_a_write_that_is_cancelled_leaves_nobody_waiting_and_the_next_report_is_written():
    """Who is in it and who waits behind it are refused: nobody knows what was written. Who comes later begins anew."""
    log = SlowLog()
    keep = KeepReports(log)
    async with asyncio.timeout(240):
        first = asyncio.create_task(keep.run(known("first"), ()))
        await log.begun.wait()
        behind = asyncio.create_task(keep.run(known("behind"), ()))
        while not keep._waiting:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        keep._writing.cancel()
        ends = await asyncio.gather(first, behind, return_exceptions=True)
        log.may.set()
        await keep.run(known("later"), ())
    assert [end.reason for end in ends] == [Reason.STORE_UNAVAILABLE, Reason.STORE_UNAVAILABLE]
    assert log.names() == [["later"]]


async def test_a_log_that_gives_a_write_up_ends_no_writing():
    """A cancellation that nobody asked for, out of a library: those in it are refused, and those behind it written."""
    log = SlowLog()
    log.faults = [asyncio.CancelledError()]
    keep = KeepReports(log)
    async with asyncio.timeout(240):
        first = asyncio.create_task(keep.run(known("first"), ()))
        await log.begun.wait()
        behind = asyncio.create_task(keep.run(known("behind"), ()))
        while not keep._waiting:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        log.may.set()
        with pytest.raises(Refusal) as refused:
            await first
        await behind
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert log.names() == [["behind"]]
