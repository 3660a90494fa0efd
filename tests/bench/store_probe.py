"""Durable commits of the sidecar's store: how many a second, by how many ask at once, and what each costs.

Run as: python -m tests.bench.store_probe. A commit is what admitting or settling a call writes: an event, a hold or its
end, two budgets. Wall time is the disk's; processor time counts all threads.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.cli.process import SWITCH_SECONDS
from leasehold_broker.domain.amounts import ALL_METRICS, NO_CAPS, ZERO, Amounts
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Leg
from leasehold_broker.ports.state_store import DropHold, PutAccount, PutHold

WRITERS = (1, 16, 64, 256)
SECONDS = 2.0
HELD = Amounts(700, 100, 100, 1, 1)
ACCOUNTS = (AccountId("lease:leases/fcb298b942e9a8e9ea50cdc2"), AccountId("window:subject:bench|agent|day|0+86400"))
LEGS = tuple(Leg(account, ALL_METRICS) for account in ACCOUNTS)
SUBJECT = Subject("https://idp.example", "agents/research/bench", {"environment": "demo", "team": "research"})


def _event(kind: EventType, call: str) -> Event:
    details = {"call": call, "provider": "anthropic", "operation": "messages", "key": "anthropic-demo"}
    return Event(kind, 1, Outcome.ALLOWED, None, SUBJECT, "leases/fcb298b942e9a8e9ea50cdc2", "r" * 24, details)


async def _commits(directory: Path, writers: int) -> tuple[int, float, float]:
    """How many commits in how many seconds, and the processor seconds they took."""
    store = SqliteStateStore(directory, "bench", SystemClock(), StoreLimits(spool_bytes_max=2**40))
    done = 0
    until = time.perf_counter() + SECONDS

    async def write(writer: int) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() < until:
            number += 1
            hold = Hold(HoldId(f"{writer:08x}{number:016x}"), LEGS, HELD)
            await store.commit([_event(EventType.CALL_ADMITTED, hold.id)], [PutHold(hold, "leases/bench")])
            accounts = [PutAccount(account, NO_CAPS, HELD, ZERO) for account in ACCOUNTS]
            await store.commit(
                [_event(EventType.CALL_SETTLED, hold.id)], [DropHold(hold.id), *accounts], essential=True
            )
            done += 2

    started, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(writer) for writer in range(writers)))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    await store.close()
    return done, seconds, processor


def measure() -> None:
    """Measure and print."""
    switch = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    sys.stdout.write("\nwriters  durable commits/s  cpu us/commit\n")
    for writers in WRITERS:
        with tempfile.TemporaryDirectory(prefix="leasehold-bench-store-") as folder:
            done, seconds, processor = uvloop.run(_commits(Path(folder) / "state", writers))
        sys.stdout.write(f"{writers:7}  {done / seconds:17.0f}  {processor / done * 1e6:13.1f}\n")
    sys.setswitchinterval(switch)


if __name__ == "__main__":
    measure()
