"""A state store in memory, complete: durable only what was flushed, refusing what it is told to refuse.

The disk is an object of its own that outlives the store, so that a test can drop the process at any commit and open
the same disk again. With `hold()` nothing becomes durable until `flush(count)`: the test picks the durable prefix.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from leasehold_broker.adapters.sqlite_state.opening import translated
from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, ChainEnd, chain
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.keys import KeyMark
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.replay import Showing
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.outbox import PendingRecord
from leasehold_broker.ports.state_store import (
    Change,
    DropAccount,
    DropBudgetChange,
    DropEngineLease,
    DropHold,
    DropLease,
    DropRequest,
    DropRevocation,
    PutAccount,
    PutBudgetChange,
    PutEngineLease,
    PutHold,
    PutKeyMark,
    PutLease,
    PutRequest,
    PutRevocation,
    PutShowing,
    StoredState,
)
from leasehold_broker.wire.event_body import encode_event

BEHIND = Refusal(Reason.STORE_UNAVAILABLE, "behind a failure")


@dataclass
class MemoryDisk:
    """What outlives a process."""

    boot_id: str = "boot-1"
    lives: int = 0
    last: ChainEnd | None = None
    position: int = 0
    spooled: int = 0
    leases: dict[str, tuple[Lease, bytes, str]] = field(default_factory=dict)
    accounts: dict[str, PutAccount] = field(default_factory=dict)
    holds: dict[str, PutHold] = field(default_factory=dict)
    requests: dict[tuple[str, str], PutRequest] = field(default_factory=dict)
    revocations: dict[int, Revocation] = field(default_factory=dict)
    showings: dict[tuple[str, str], Showing] = field(default_factory=dict)
    key_marks: dict[tuple[str, str, str], KeyMark] = field(default_factory=dict)
    budget_changes: dict[int, BudgetChange] = field(default_factory=dict)
    engine_leases: dict[str, EngineLease] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    """Accounts that were dropped: one that comes back after the wall clock was set back starts empty."""
    outbox: list[PendingRecord] = field(default_factory=list)
    events: list[tuple[str, int, Event]] = field(default_factory=list)
    """Every durable event with its epoch and sequence, shipped or not: for replays."""


@dataclass
class _Commit:
    events: Sequence[Event]
    bodies: Sequence[bytes]
    changes: Sequence[Change]
    essential: bool
    done: asyncio.Future[None]


class MemoryStateStore:
    """Implements `StateStore` and `Outbox`."""

    def __init__(self, disk: MemoryDisk, clock: Clock, stream: str = "memory", spool_bytes_max: int = 2**40) -> None:
        """Start."""
        self.disk = disk
        self.pepper = b"p" * 32
        self.down: Refusal | None = None
        self.full = False
        self.commits = 0
        self._previous = disk.last
        disk.lives += 1
        self.epoch = f"{disk.lives:08d}"
        self._clock = clock
        self._stream = stream
        self._spool_bytes_max = spool_bytes_max
        self._sequence = 0
        self._digest = GENESIS
        self._queue: deque[_Commit] = deque()
        self._holding = False
        self._failing = False
        self._more = asyncio.Event()
        self._crashed = False

    def load(self) -> StoredState:
        """What is on the disk."""
        now = self._clock.now()
        for name, (lease, digest, boot_id) in self.disk.leases.items():
            if boot_id != self.disk.boot_id:
                self.disk.leases[name] = (translated(lease, now), digest, self.disk.boot_id)
        return StoredState(
            [(lease, digest) for _, (lease, digest, _) in sorted(self.disk.leases.items())],
            list(self.disk.accounts.values()),
            [put for _, put in sorted(self.disk.holds.items())],
            list(self.disk.requests.values()),
            [entry for _, entry in sorted(self.disk.revocations.items())],
            list(self.disk.showings.values()),
            self._previous,
            list(self.disk.key_marks.values()),
            [change for _, change in sorted(self.disk.budget_changes.items())],
            [one for _, one in sorted(self.disk.engine_leases.items())],
        )

    def commit(
        self,
        events: Sequence[Event],
        changes: Sequence[Change] = (),
        *,
        essential: bool = False,
        deferred: bool = False,  # noqa: ARG002 - this disk is never busy: company would save nothing
    ) -> Awaitable[None]:
        """Queue; durable at the next turn of the loop, or when flushed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failing:
            done.set_exception(BEHIND)
            return done
        bodies = [encode_event(event) for event in events]
        self._queue.append(_Commit(events, bodies, tuple(changes), essential, done))
        self.commits += 1
        if not self._holding:
            asyncio.get_running_loop().call_soon(self.flush)
        return done

    def hold(self) -> None:
        """Let nothing become durable until flushed."""
        self._holding = True

    def release(self) -> None:
        """Write everything, and again at once from now on."""
        self._holding = False
        self.flush()

    @property
    def queued(self) -> int:
        """Commits that are not durable yet."""
        return len(self._queue)

    def crash(self) -> MemoryDisk:
        """The process is gone: what was not flushed never happened. Returns the disk."""
        self._crashed = True
        self._queue.clear()
        return self.disk

    def flush(self, count: int | None = None) -> None:
        """Write the next `count` commits, or all."""
        for _ in range(len(self._queue) if count is None else count):
            if self._queue:
                self._write(self._queue.popleft())

    def _write(self, commit: _Commit) -> None:
        refusal = self._refusal(commit)
        if refusal is not None:
            if not commit.done.done():
                commit.done.set_exception(refusal)
            if refusal is self.down:
                self._fail_behind()
            return
        for event, body in zip(commit.events, commit.bodies, strict=True):
            record = chain(self._stream, self.epoch, self._sequence + 1, self._digest, body)
            self._sequence, self._digest = record.sequence, record.digest
            self.disk.last = ChainEnd(record.epoch, record.sequence, record.digest)
            self.disk.position += 1
            self.disk.spooled += len(body)
            self.disk.outbox.append(PendingRecord(self.disk.position, record))
            self.disk.events.append((self.epoch, record.sequence, event))
        for change in commit.changes:
            self._apply(change)
        self._written(commit)
        self._more.set()

    def _written(self, commit: _Commit) -> None:
        """Tell whoever waits for it."""
        if not commit.done.done():
            commit.done.set_result(None)

    def _refusal(self, commit: _Commit) -> Refusal | None:
        if self.down is not None:
            return self.down
        over = self.full or self.disk.spooled >= self._spool_bytes_max
        if over and commit.events and not commit.essential:
            return Refusal(Reason.AUDIT_SPOOL_FULL, "full")
        return None

    def _fail_behind(self) -> None:
        """Everything called before the failure was told fails with it, and so does what is called until then."""
        self._failing = True
        behind, self._queue = self._queue, deque()
        for commit in behind:
            if not commit.done.done():
                commit.done.set_exception(BEHIND)
        asyncio.get_running_loop().call_soon(self._told)

    def _told(self) -> None:
        self._failing = False

    def _apply(self, change: Change) -> None:  # noqa: C901, PLR0912 - one arm for each kind of change
        disk = self.disk
        match change:
            case PutLease(lease, digest):
                known = disk.leases.get(lease.name)
                if digest is not None or known is not None:
                    disk.leases[lease.name] = (lease, digest or known[1], disk.boot_id)
            case DropLease(name):
                disk.leases.pop(name, None)
            case PutHold(hold):
                assert hold.id not in disk.holds
                disk.holds[hold.id] = change
            case DropHold(hold_id):
                disk.holds.pop(hold_id, None)
            case PutAccount(account):
                disk.accounts[account] = change
            case DropAccount(account):
                disk.accounts.pop(account, None)
                disk.forgotten.add(account)
            case PutRequest(scope, request_id):
                disk.requests[scope, request_id] = change
            case DropRequest(scope, request_id):
                disk.requests.pop((scope, request_id), None)
            case PutRevocation(entry):
                disk.revocations[entry.epoch] = entry
            case DropRevocation(epoch):
                disk.revocations.pop(epoch, None)
            case PutBudgetChange(made):
                disk.budget_changes[made.number] = made
            case DropBudgetChange(number):
                disk.budget_changes.pop(number, None)
            case PutEngineLease(made_for_us):
                disk.engine_leases[made_for_us.id] = made_for_us
            case DropEngineLease(name):
                disk.engine_leases.pop(name, None)
            case PutShowing(showing, now_wall_ms):
                kept = {key: one for key, one in disk.showings.items() if one.until_wall_ms >= now_wall_ms}
                disk.showings = kept | {(showing.table, showing.key): showing}
            case PutKeyMark(mark):
                kept = {
                    at: one for at, one in disk.key_marks.items() if one.key != mark.key or one.version >= mark.version
                }
                disk.key_marks = kept | {(mark.key, mark.kind, mark.lease): mark}
            case _:
                assert_never(change)

    async def pending_after(self, position: int, limit: int) -> Sequence[PendingRecord]:
        """Durable records after `position`."""
        return [one for one in self.disk.outbox if one.position > position][:limit]

    async def acknowledge(self, position: int) -> None:
        """Forget up to `position`."""
        self.disk.spooled -= sum(len(one.record.body) for one in self.disk.outbox if one.position <= position)
        self.disk.outbox = [one for one in self.disk.outbox if one.position > position]

    async def wait_for_more(self, position: int) -> None:
        """Return once a record after `position` is durable."""
        while self.disk.position <= position:
            self._more.clear()
            await self._more.wait()

    async def close(self) -> None:
        """Write what is queued."""
        self.release()

    def records(self) -> list[ChainedRecord]:
        """What waits, in order."""
        return [one.record for one in self.disk.outbox]
