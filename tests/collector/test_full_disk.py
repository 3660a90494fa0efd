"""A collector's store on a disk that is really full: a small tmpfs, and a file that takes what is left of it.

Needs root and mounts; skipped, with the reason, where they are not.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey
from leasehold_broker.domain.write_rank import WriteRank
from leasehold_broker.flows.issue_revocation import issued_event
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport

RESERVE = 8 << 20
DISK = 40 << 20


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is a mount, which needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "leasehold-test", str(disk)],
        check=False,
        capture_output=True,
        timeout=60,
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True, timeout=60)


def fill(disk: Path, but: int = 0) -> None:
    """No byte is left on it, or so many."""
    if but:
        free = os.statvfs(disk)
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - but)
        return
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def empty(disk: Path) -> None:
    """What was filled is free again."""
    (disk / "filler").unlink()


def opened(disk: Path, epoch: str = "c1") -> CollectorStore:
    """A life of the store."""
    return CollectorStore(disk / "c.db", "collector", epoch, reserve_bytes=RESERVE)


async def revoke(store: CollectorStore, number: int):
    """A revocation with its event."""
    draft = RevocationDraft(ByKey(f"key-{number}"), "leaked " * 50, "alice", f"r{number}", 5)
    return await store.issue(draft, lambda entry: issued_event(entry, draft))


def kept(disk: Path) -> int:
    """Bytes of the reserve, as they are on the disk."""
    return (disk / "reserve").stat().st_blocks * 512


async def refused(taking) -> Reason:
    """Why."""
    with pytest.raises(Refusal) as refusal:
        await taking
    return refusal.value.reason


async def test_r4_a_full_disk_takes_no_events_and_hundreds_of_revocations_each_with_its_event(disk):
    """What is left is for revocations: they and their events are kept, over a restart on the full disk too."""
    store, emitter = opened(disk), Emitter()
    first = emitter.calls(50)
    await store.append("sidecar-1", first, 1)
    assert kept(disk) == RESERVE
    fill(disk)
    assert (await store.disk.look()).low
    later = emitter.calls(50)
    assert await refused(store.append("sidecar-1", later, 2)) is Reason.AUDIT_DISK_LOW
    for number in range(200):
        await revoke(store, number)
        await store.heard([SidecarReport(KnownSidecar("sidecar-1", "prod", "1", number + 1, 5, 1000), ())])
    await store.close()
    again = opened(disk, "c2")
    assert again.epoch() == 200
    assert again.disk.state.low
    await again.record(Event(EventType.COLLECTOR_STARTED, 5, Outcome.ALLOWED))
    for number in range(200, 300):
        await revoke(again, number)
    assert await refused(again.append("sidecar-1", later, 2)) is Reason.AUDIT_DISK_LOW
    assert 0 < kept(disk) < RESERVE
    empty(disk)
    assert not (await again.disk.look()).low
    assert kept(disk) == RESERVE
    await again.append("sidecar-1", later, 3)
    page = await again.page(EventFilter(type=EventType.REVOCATION_ISSUED), 0, 1000)
    assert len(page) == 300
    taken = await again.page(EventFilter(stream="sidecar-1"), 0, 1000)
    assert [one.record for one in taken] == [*first, *later]
    await again.close()


async def test_sessions_go_on_upon_half_of_the_reserve_and_leave_the_rest_to_revocations(disk):
    """A sidecar that comes in again and again on a full disk is refused in the end; it can still be revoked."""
    store = opened(disk)
    fill(disk)
    await store.disk.look()
    again = Event(EventType.SIDECAR_CONNECTED, 5, Outcome.ALLOWED, details={"version": "x" * 60_000})
    came = 0
    with contextlib.suppress(Refusal):
        for _ in range(1000):
            await store.record(again)
            came += 1
    assert 10 < came < 1000
    assert kept(disk) >= RESERVE // 2 - RESERVE // 8
    assert await refused(store.record(again)) is Reason.AUDIT_DISK_LOW
    for number in range(50):
        await revoke(store, number)
    assert store.epoch() == 50
    await store.close()


async def test_a_batch_that_finds_no_room_takes_no_revocation_with_it(disk):
    """Both may be in one transaction: the batch is refused whole, the revocation is in force; then both have room."""
    store, emitter = opened(disk), Emitter()
    await store.append("sidecar-1", emitter.calls(1), 1)
    large = [
        emitter.emit(Event(EventType.CALL_REFUSED, 5, Outcome.DENIED, details={"message": "x" * 63_000}))
        for _ in range(200)
    ]
    fill(disk, but=RESERVE + (1 << 20))
    assert not (await store.disk.look()).low
    batch, issued = store.append("sidecar-1", large, 2), revoke(store, 1)
    ends = await asyncio.gather(batch, issued, return_exceptions=True)
    assert isinstance(ends[0], Refusal)
    assert ends[0].reason is Reason.STORE_UNAVAILABLE
    assert ends[1].epoch == store.epoch() == 1
    assert await refused(store.append("sidecar-1", large, 2)) is Reason.AUDIT_DISK_LOW
    empty(disk)
    await store.disk.look()
    assert (await store.append("sidecar-1", large, 3)).sequence == 201
    await store.close()


async def test_a_quota_that_is_used_up_is_a_full_disk_whatever_the_disk_says(tmp_path):
    """A write that found no room stops events at once; that there is room again is known once it was taken."""
    store, emitter = opened(tmp_path), Emitter()
    records = emitter.calls(200)

    def pages(most: int):
        return lambda connection: connection.execute(f"PRAGMA max_page_count={most}").fetchone() and None

    await store._writer.submit(pages(1), WriteRank.REVOCATIONS)
    assert await refused(store.append("sidecar-1", records, 1)) is Reason.STORE_UNAVAILABLE
    assert store.disk.state.low
    assert await refused(store.append("sidecar-1", records, 1)) is Reason.AUDIT_DISK_LOW
    await store._writer.submit(pages(1073741823), WriteRank.REVOCATIONS)
    assert not (await store.disk.look()).low
    assert (await store.append("sidecar-1", records, 2)).sequence == 200
    assert kept(tmp_path) == RESERVE
    await store.close()


async def test_the_reserve_has_the_size_that_is_configured_and_is_private(tmp_path):
    """More or less of it after a restart; 0 keeps nothing, and never calls a disk low."""
    await opened(tmp_path).close()
    assert kept(tmp_path) == RESERVE
    assert (tmp_path / "reserve").stat().st_mode & 0o777 == 0o600
    await CollectorStore(tmp_path / "c.db", "collector", "c2", reserve_bytes=RESERVE * 2).close()
    assert kept(tmp_path) == RESERVE * 2
    await CollectorStore(tmp_path / "c.db", "collector", "c3", reserve_bytes=RESERVE).close()
    assert kept(tmp_path) == RESERVE
    store = CollectorStore(tmp_path / "c.db", "collector", "c4")
    assert not (await store.disk.look()).low
    await store.close()
    assert not (tmp_path / "reserve").exists()
