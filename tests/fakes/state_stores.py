"""The state stores, in memory and on disk, each with a disk that breaks and a machine that starts anew."""

import contextlib
from pathlib import Path

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits, opening
from leasehold_broker.domain.amounts import NO_CAPS, ZERO, Amounts
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.ledger import AccountId
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.state_store import PutAccount

A = AccountId("lease:a")


class MemoryHarness:
    """Opens the store in memory."""

    def __init__(self, clock: ManualClock) -> None:
        """Start with an empty disk."""
        self.clock, self.disk = clock, MemoryDisk()

    def open(self, spool_bytes_max: int = 2**30) -> MemoryStateStore:
        """A new life of the store."""
        return MemoryStateStore(self.disk, self.clock, "s", spool_bytes_max)

    def reboot(self, _: pytest.MonkeyPatch) -> None:
        """The machine starts anew."""
        self.disk.boot_id = "boot-2"

    def break_disk(self, store: MemoryStateStore) -> None:
        """The next commits fail for want of space."""
        store.down = Refusal(Reason.AUDIT_SPOOL_FULL, "no space")

    def mend_disk(self, store: MemoryStateStore) -> None:
        """There is space again."""
        store.down = None


class SqliteHarness:
    """Opens the store on disk."""

    def __init__(self, clock: ManualClock, directory: Path) -> None:
        """Start with an empty directory."""
        self.clock, self.directory = clock, directory
        self._pages = 0

    def open(self, spool_bytes_max: int = 2**30) -> SqliteStateStore:
        """A new life of the store."""
        return SqliteStateStore(self.directory, "s", self.clock, StoreLimits(spool_bytes_max))

    async def open_and_load(self) -> None:
        """A life of the store that ends with its first look at what is there."""
        async with contextlib.AsyncExitStack() as stack:
            store = self.open()
            stack.push_async_callback(store.close)
            store.load()

    def reboot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The machine starts anew."""
        monkeypatch.setattr(opening, "boot_id", lambda: "another boot")

    def break_disk(self, store: SqliteStateStore) -> None:
        """SQLite itself says that the disk is full, as soon as the file would have to grow."""
        store._connection.execute("PRAGMA max_page_count = 1")

    def mend_disk(self, store: SqliteStateStore) -> None:
        """There is space again."""
        store._connection.execute("PRAGMA max_page_count = 1000000")


def event(number: int, padding: int = 0) -> Event:
    """A distinguishable event."""
    return Event(EventType.CALL_ADMITTED, number, Outcome.ALLOWED, details={"number": number, "padding": "x" * padding})


def put_account(settled: int) -> PutAccount:
    """The account with this much settled."""
    return PutAccount(A, NO_CAPS, Amounts(settled), ZERO)


async def commit_until_refused(store, padding: int) -> None:
    """One commit after the other, far more than any limit in these tests takes."""
    for number in range(200):
        await store.commit([event(number, padding)], [put_account(number)])
