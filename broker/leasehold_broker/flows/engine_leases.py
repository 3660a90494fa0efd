"""Credentials that secret engines made for us, until each is revoked. Owns that none is forgotten.

Each is written down before its engine is asked for it, by the name of the token with which it is read, and stays
written down until the engine has confirmed its end: whenever the process dies, the next life knows what to revoke, or
goes on renewing what a live lease still uses. One that cannot be renewed takes its lease with it when its time is over.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.lease import Lease, LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.ending import Endings
from leasehold_broker.flows.journal import Batch, Journal, unharmed
from leasehold_broker.flows.pauses import Pauses
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.secret_engine import EngineAnswer, SecretEngine
from leasehold_broker.ports.state_store import DropEngineLease, PutEngineLease

HELD_MAX = 1_000
"""Credentials at once, those that wait for their end included."""
WORK_MAX = 4
"""Questions of upkeep to one key's engine at once."""
RENEW_AT = 0.6
"""Share of its life after which a credential is renewed."""
NO_REACH = "its engine cannot shorten its life at the provider: where revoking is not enough, it lives to its end"


@dataclass(frozen=True, slots=True)
class DynamicKey:
    """One rule.

    Args:
        name, provider, environment: as of any key.
        version: of the rule.
        engine: makes and ends its credentials.
        life_seconds: for which each is asked for and renewed: after that, without this process, its engine ends it.
        brokered: a call can carry it.
    """

    name: str
    provider: str
    environment: str
    version: int
    engine: SecretEngine
    life_seconds: int
    brokered: bool


@dataclass(slots=True, eq=False)
class Held:
    """One credential, without its secret.

    Args:
        record: as it is, or will be, written down.
        end_ns: when the engine ends it by itself.
        renew_ns: when its life is to be extended; None: it cannot be.
        wanted: False once it is to be revoked whatever its lease does.
    """

    record: EngineLease
    end_ns: int
    renew_ns: int | None = None
    wanted: bool = True
    busy: bool = False
    told: str = ""


class EngineLeases:
    """Looks after them."""

    def __init__(self, keys: Mapping[str, DynamicKey], books: Books, journal: Journal, clock: Clock) -> None:
        """Hold none yet."""
        self._keys = keys
        self._books = books
        self._journal = journal
        self._clock = clock
        self._endings = Endings(books)
        self._held: dict[str, Held] = {}
        self._working: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pauses: Pauses[str, SourceFault] = Pauses()

    def __repr__(self) -> str:
        """Counts only."""
        return f"EngineLeases(held={len(self._held)})"

    def resume(self, stored: Iterable[EngineLease]) -> None:
        """Take over what an earlier life left: renewed where its lease still lives, else revoked at the next look.

        A lease that has ended meanwhile is seen by that look.
        """
        now = self._clock.now()
        for record in stored:
            key, lease = self._keys.get(record.key), self._books.leases.get(record.lease)
            if key is None:
                # Nobody to ask: kept until its key is back.
                self._held[record.id] = Held(record, 0, busy=True, told="not configured")
                why = f"key {record.key!r} is not configured any more: revoke the token by its accessor, or add the key"
                self._tell(EventType.KEY_NOT_REVOKED, record, {"state": "not_configured", "why": why})
            elif lease is None or not record.engine_lease:
                self._held[record.id] = Held(record, 0, wanted=False)
            else:
                # How long it still lives is not known: it is renewed at once, and lives as long as its lease otherwise.
                end_ns = now.after(key.life_seconds) if record.renewable else lease.max_expire_ns
                self._held[record.id] = Held(record, end_ns, now.boot_ns if record.renewable else None)
                self._books.engine_leases[lease.name] = record

    async def expect(self, record: EngineLease, end_ns: int) -> Held:
        """Write down that a credential is about to be read.

        Raises:
            Refusal: it could not be; it must not be read then, and what was opened for it is revoked.
        """
        held = self._held[record.id] = Held(record, end_ns)
        try:
            await unharmed(self._journal.grant([], [PutEngineLease(record)]))
        except BaseException:
            held.wanted = False
            raise
        return held

    def check_room(self) -> None:
        """Refuse where too many are held.

        Raises:
            Refusal: OVERLOADED.
        """
        if len(self._held) >= HELD_MAX:
            raise Refusal(
                Reason.OVERLOADED,
                f"{HELD_MAX} credentials of secret engines are held here, the maximum; release leases you do not need",
                retry_after_seconds=5.0,
            )

    def answered(self, held: Held, answer: EngineAnswer, asked: Instant) -> None:
        """The engine has given it."""
        held.record = replace(held.record, engine_lease=answer.engine_lease, renewable=answer.renewable)
        held.end_ns = min(held.end_ns, asked.after(answer.life_seconds))
        held.renew_ns = _at(asked, held.end_ns, RENEW_AT) if answer.renewable else None

    def claim(self, held: Held, lease: Lease | None, request_id: str, now: Instant) -> Batch:
        """What is made durable when it is handed out with `lease`, or when calls begin to share it (None)."""
        if lease is not None:
            held.record = replace(held.record, lease=lease.name)
            self._books.engine_leases[lease.name] = held.record
        details: dict[str, Detail] = {"life_seconds": max(0, int(now.seconds_until(held.end_ns)))}
        if held.renew_ns is None:
            details["revocation"] = NO_REACH
        event = _event(EventType.KEY_MINTED, held.record, details, now)
        event = event if lease is None else replace(event, subject=lease.subject, request_id=request_id)
        return Batch([event], [PutEngineLease(held.record)])

    def look(self) -> None:
        """Start what is due: to be called often."""
        now = self._clock.now()
        for held in tuple(self._held.values()):
            if held.busy:
                continue
            wanted = held.wanted and self._lease_lives(held.record)
            if wanted and now.boot_ns >= held.end_ns:
                self._time_is_over(held, now)
            elif not wanted:
                self._start(held, self._revoke, now)
            elif held.renew_ns is not None and now.boot_ns >= held.renew_ns:
                self._start(held, self._renew, now)

    def counts(self) -> tuple[int, int]:
        """How many are held, and of how many the last renewal or revocation failed."""
        return len(self._held), sum(bool(held.told) for held in self._held.values())

    async def settled(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def aclose(self) -> None:
        """Stop; what is not revoked yet stays written down."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _lease_lives(self, record: EngineLease) -> bool:
        if not record.lease:
            return True
        lease = self._books.leases.get(record.lease)
        return lease is not None and not lease.ended

    def _time_is_over(self, held: Held, now: Instant) -> None:
        """The engine has ended it, or is about to: so does the lease that it was handed out with."""
        held.wanted = False
        if held.record.lease and self._lease_lives(held.record):
            batch, _, _ = self._endings.end(held.record.lease, LeaseState.EXPIRED, Reason.LEASE_EXPIRED, now)
            self._journal.note(batch)

    def _start(self, held: Held, work: Callable[[Held], Coroutine[Any, Any, None]], now: Instant) -> None:
        name = held.record.key
        if self._working.get(name, 0) >= WORK_MAX or self._pauses.current(held.record.id, now) is not None:
            return
        held.busy = True
        self._working[name] = self._working.get(name, 0) + 1
        task = asyncio.get_running_loop().create_task(work(held), name="engine lease upkeep")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(held, done))

    def _done(self, held: Held, task: asyncio.Task[None]) -> None:
        held.busy = False
        self._working[held.record.key] -= 1
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _revoke(self, held: Held) -> None:
        record = held.record
        try:
            await self._keys[record.key].engine.revoke(record.accessor, record.engine_lease)
        except SourceFault as fault:
            self._failed(held, fault, EventType.KEY_NOT_REVOKED)
            return
        self._pauses.over(record.id)
        del self._held[record.id]
        self._books.engine_leases.pop(record.lease, None)
        event = _event(EventType.KEY_REVOKED, record, {}, self._clock.now())
        self._journal.note(Batch([event], [DropEngineLease(record.id)]))

    async def _renew(self, held: Held) -> None:
        record, asked = held.record, self._clock.now()
        key = self._keys[record.key]
        try:
            left_seconds = await key.engine.renew(record.accessor, record.engine_lease, key.life_seconds)
        except SourceFault as fault:
            if fault.state is SourceState.MISSING:
                held.end_ns = asked.boot_ns  # ended at the engine, by whomever: our lease must not outlive it
            self._failed(held, fault, EventType.KEY_NOT_RENEWED)
            return
        self._pauses.over(record.id)
        held.told = ""
        end_ns = asked.after(left_seconds)
        # An engine has a longest life: when nothing is gained any more, the credential is left to end.
        held.renew_ns = _at(asked, end_ns, RENEW_AT) if end_ns > held.end_ns else None
        held.end_ns = end_ns
        self._tell(EventType.KEY_RENEWED, record, {"life_seconds": left_seconds})

    def _failed(self, held: Held, fault: SourceFault, kind: EventType) -> None:
        self._pauses.failed(held.record.id, fault, self._clock.now(), fault.retry_after_seconds or 0.0)
        told = f"{kind.value} {fault.state.value}"
        if held.told != told:
            held.told = told
            self._tell(kind, held.record, {"state": fault.state.value, "why": str(fault)})

    def _tell(self, kind: EventType, record: EngineLease, details: Mapping[str, Detail]) -> None:
        self._journal.note(Batch([_event(kind, record, details, self._clock.now())]))


def _at(asked: Instant, end_ns: int, share: float) -> int:
    return asked.boot_ns + int((end_ns - asked.boot_ns) * share)


_FAILURES = frozenset({EventType.KEY_NOT_REVOKED, EventType.KEY_NOT_RENEWED})


def _event(kind: EventType, record: EngineLease, more: Mapping[str, Detail], now: Instant) -> Event:
    failed = kind in _FAILURES
    details: dict[str, Detail] = {
        "key": record.key,
        "version": record.version,
        "engine_lease": record.engine_lease,
        "accessor": record.accessor,
        **more,
    }
    return Event(
        kind,
        now.wall_ms,
        Outcome.FAILED if failed else Outcome.ALLOWED,
        Reason.KEY_UNAVAILABLE if failed else None,
        lease=record.lease,
        details=details,
    )
