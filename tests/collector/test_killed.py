"""kill -9 of a collector process, and the link over the sidecar's real store: nothing lost, nothing double."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.audit_verify import verify
from tests.fakes.centre import Centre, Sidecar, eventually
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import call_event

from leasehold_broker.adapters.collector_link import CollectorLink
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.domain.audit_query import EventFilter

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def collector_process(folder: Path, epoch: str):
    """A collector that is killed, not stopped, at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fakes.collector_process",
        str(folder),
        epoch,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        while (line := await process.stdout.readline()) != b"ready\n":
            assert line, "the collector ended before it was ready"
        yield process
    finally:
        process.kill()
        await process.communicate()


async def test_a_killed_collector_keeps_what_it_acknowledged(tmp_path):
    """The collector is killed twice while records stream in: all arrive once, in order, and the whole log verifies."""
    async with asyncio.timeout(240):
        sidecar = Sidecar(f"unix:{tmp_path / 'collector.sock'}")
        async with sidecar:
            for life in ("c1", "c2"):
                sidecar.emit(2000)  # in each life some: the first may take all there are before it is killed
                async with collector_process(tmp_path, life):
                    before = sidecar.link.counters.records_acknowledged
                    await eventually(lambda b=before: sidecar.link.counters.records_acknowledged > b + 400)
            acknowledged = sidecar.link.counters.records_acknowledged
            async with collector_process(tmp_path, "c3"):
                await sidecar.outbox.empty()
    store = CollectorStore(tmp_path / "collector.db", "collector", "c4")
    try:
        stored, position = [], 0
        while page := await store.page(EventFilter(), position, 500):
            stored.extend(page)
            position = page[-1].position
        heads = await store.heads()
    finally:
        await store.close()
    assert acknowledged > 800
    assert [one.record.sequence for one in stored if one.record.stream == "sidecar-1"] == list(range(1, 4001))
    assert verify(stored, heads).holds


async def test_the_sidecars_own_store_ships_over_the_link(tmp_path):
    """Events committed in the sidecar's SQLite store arrive in the collector's and leave the outbox."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre:
        state = SqliteStateStore(tmp_path / "state", "sidecar-1", SystemClock(), StoreLimits())
        state.load()
        sidecar = Sidecar(centre.target)
        link = CollectorLink(sidecar.settings, state, sidecar.sink, lambda: (), sidecar.budget_tie, SystemClock())
        task = asyncio.create_task(link.run())
        await asyncio.gather(*(state.commit([call_event(number)]) for number in range(300)))
        await eventually(lambda: link.counters.records_acknowledged == 300)
        await nothing_more(state)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert list(await state.pending_after(0, 10)) == []
        await state.close()
        again = SqliteStateStore(tmp_path / "state", "sidecar-1", SystemClock(), StoreLimits())
        again.load()
        await nothing_more(again)
        await again.close()
        stored = await centre.store.page(EventFilter(stream="sidecar-1"), 0, 500)
        assert [one.record.sequence for one in stored] == list(range(1, 301))


async def nothing_more(state: SqliteStateStore) -> None:
    """A link that starts anew waits: what is acknowledged does not look like more, now or after a restart."""
    waiting = asyncio.create_task(state.wait_for_more(0))
    assert list(await state.pending_after(0, 10)) == []
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
