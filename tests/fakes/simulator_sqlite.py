"""The simulated sidecar on the real SQLite store, which must say at every start exactly what the store in memory says.

A crash takes a copy of the files as they are, without closing anything, and opens that: what a killed process leaves.
"""

import asyncio
import shutil
from pathlib import Path

from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore, _Commit
from tests.fakes.simulator import Simulator, stop_everything_else

from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.ports.state_store import StoredState


class TwinStore(MemoryStateStore):
    """Takes commits as the store in memory does, and is done with each only when SQLite is."""

    def __init__(self, disk: MemoryDisk, clock: ManualClock, directory: Path) -> None:
        """Open both."""
        super().__init__(disk, clock)
        self.real = SqliteStateStore(directory, "memory", clock, StoreLimits())
        self.pepper = self.real.pepper
        self.waiting: set[asyncio.Future[None]] = set()

    def load(self) -> StoredState:
        """What SQLite has; it must be what memory has, row for row, and the log body for body."""
        state, expected = self.real.load(), super().load()
        for name in ("leases", "accounts", "holds", "requests", "revocations", "budget_changes"):
            found, wanted = (sorted(map(repr, getattr(one, name))) for one in (state, expected))
            assert found == wanted, f"the stores differ in {name}"
        bodies = [row[0] for row in self.real._connection.execute("SELECT body FROM outbox ORDER BY position")]
        assert bodies == [one.record.body for one in self.disk.outbox], "the stores differ in the log"
        return state

    def _written(self, commit: _Commit) -> None:
        real = asyncio.ensure_future(self.real.commit(commit.events, commit.changes, essential=True))
        self.waiting.add(real)
        real.add_done_callback(lambda done: self._real(commit, done))

    def _real(self, commit: _Commit, done: asyncio.Future[None]) -> None:
        self.waiting.discard(done)
        assert done.exception() is None
        super()._written(commit)


class SqliteSimulator(Simulator):
    """One seed's world on SQLite."""

    def __init__(self, seed: int, directory: Path) -> None:
        """Keep each life's files in a directory of its own."""
        super().__init__(seed)
        self.directory = directory

    @property
    def life(self) -> Path:
        """Where this life's files are."""
        return self.directory / f"life-{self.lives}"

    def open_store(self) -> TwinStore:
        """On what the last life has left."""
        return TwinStore(self.disk, self.clock, self.life)

    async def settle_down(self) -> None:
        """Also wait for the disk."""
        await super().settle_down()
        while self.store.waiting:
            await asyncio.wait(self.store.waiting)
            await super().settle_down()

    async def crash(self) -> None:
        """Killed; what had reached the files is copied and opened."""
        self.store.flush(self.rng.randint(0, self.store.queued))
        self.store.crash()
        while self.store.waiting:
            await asyncio.wait(self.store.waiting)
        following = self.directory / f"life-{self.lives + 1}"
        following.mkdir(mode=0o700)
        for file in self.life.iterdir():
            if file.suffix != ".db-shm":
                shutil.copy(file, following)
        await stop_everything_else()
        await self.store.real.close()
        self.forget_tasks()
        self.seen["crash"] += 1
        await self.start()
