"""A process of many links: each the sidecar's own link, over the flows that keep leases and apply revocations.

Run `python -m tests.bench.fleet.links PLAN`: says "ready" once every link has the centre's authority, and writes what
it noted when its input ends. Only the store of each is in memory: a thousand of them would share one disk here, and
have one each where they live.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop
from tests.fakes.core import PEER, Core, identity, request
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore
from tests.fakes.rpc import SystemClock

from leasehold_broker.adapters.collector_link import BudgetTie, CollectorLink, LinkSettings, TlsFiles
from leasehold_broker.domain.budget_changes import BudgetRows
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.flows.apply_revocations import ApplyRevocations
from leasehold_broker.flows.live_leases import ReportLeases

LEASES_EACH = 3
STARTING_MAX = 8
"""So many connect at a time: on one machine the storm would be the slower way."""
LOOK_SECONDS = 0.02
READY_SECONDS = 280.0
KEPT_EVENTS = 64


class NotedSink:
    """The real sink, with the time at which each entry was in force: durable, as it is acknowledged."""

    def __init__(self, sink: ApplyRevocations, noted: list[tuple[int, int]]) -> None:
        """Note into this list: epoch, and nanoseconds of the monotonic clock."""
        self._sink = sink
        self._noted = noted

    def applied_epoch(self) -> int:
        """As the port says."""
        return self._sink.applied_epoch()

    def history_digest(self) -> bytes:
        """As the port says."""
        return self._sink.history_digest()

    def numbered(self, epoch: int) -> Revocation | None:
        """As the port says."""
        return self._sink.numbered(epoch)

    async def set_aside(self, above_epoch: int) -> None:
        """As the port says."""
        await self._sink.set_aside(above_epoch)

    async def apply(self, revocations: Sequence[Revocation]) -> Sequence[AppliedRevocation]:
        """As the port says."""
        applied = await self._sink.apply(revocations)
        now = time.monotonic_ns()
        self._noted.extend((entry.epoch, now) for entry in revocations)
        return applied


class Linked:
    """One sidecar's heart and link."""

    def __init__(self, name: str, target: str, folder: Path) -> None:
        """Connect nothing yet."""
        clock = SystemClock()
        store = MemoryStateStore(MemoryDisk(), clock, name)
        self._events = store.disk.events
        self.core = Core(store, clock)
        self.core.books.sidecar = name
        self.noted: list[tuple[int, int]] = []
        tls = TlsFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key", "localhost")
        self._clock = clock
        self.link = CollectorLink(
            LinkSettings(target, name, "bench", "0.0", None, tls),
            store,
            NotedSink(self.core.revocations, self.noted),
            ReportLeases(self.core.books),
            BudgetTie(self.core.apply_budgets, lambda: BudgetRows((), 0), self.core.books.slices),
            clock,
        )

    async def run(self) -> None:
        """Hold a few leases, and the link, until cancelled."""
        await self.core.recover()
        for number in range(LEASES_EACH):
            wanted = request()
            await self.core.acquire.run(
                identity(f"agent-{number}"), PEER, wanted, _request_id(number), validate_only=False
            )
        await self.link.run()

    @property
    def speaks(self) -> bool:
        """It has the centre's authority."""
        del self._events[:-KEPT_EVENTS]  # kept by the store in memory for replays, which nobody does here
        return self.link.authority_lapsed_seconds(self._clock.now()) is None


def _request_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


async def _run(plan: dict) -> None:
    links = [Linked(name, plan["target"], Path(plan["certificates"])) for name in plan["names"]]
    tasks = []
    async with asyncio.timeout(READY_SECONDS):
        for number, link in enumerate(links):
            tasks.append(asyncio.create_task(link.run()))
            while not all(one.speaks for one in links[: max(0, number + 1 - STARTING_MAX)]):  # noqa: ASYNC110 - at the start
                await asyncio.sleep(LOOK_SECONDS)
        while not all(link.speaks for link in links):  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(LOOK_SECONDS)
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    failures: dict[str, int] = {}
    for link in links:
        for why, count in link.link.counters.failures.items():
            failures[why] = failures.get(why, 0) + count
    noted = [(link.core.books.sidecar, link.noted) for link in links]
    _write(plan["out"], {"noted": noted, "failures": failures})


def _write(path: str, noted: object) -> None:
    Path(path).write_text(json.dumps(noted))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    uvloop.run(_run(json.loads(Path(sys.argv[1]).read_text())))
