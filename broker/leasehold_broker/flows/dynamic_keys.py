"""Keys of secret engines: a credential is made when it is needed, and revoked when nothing needs it any more.

What is handed out is of one lease alone. What calls carry is shared by all leases of the same key, as a federated
token is: it is replaced before it ends, and revoked once no lease and no call uses it. The upkeep of each credential
is `EngineLeases`'; here is when one is read, and who gets it.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyKind, KeyRecord, KeyState
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.engine_leases import DynamicKey, EngineLeases, Held
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.flows.pauses import PAUSE_SECONDS, Pauses
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.key_source import FINAL, SourceFault
from leasehold_broker.ports.secret_engine import EngineAnswer

LIFE_SECONDS_MIN = 10
"""Nothing shorter is asked for: it would be over before it is used."""
REPLACE_AT, REPLACE_JITTER = 0.6, 0.2
LAST_SECONDS, LAST_SHARE = 30.0, 0.1
"""Not used in its last 30 seconds, or in the last tenth of a short life."""
IDLE_SECONDS = 60.0
"""So long after its last use a shared credential is revoked, when no lease is left that names its key."""
DRAIN_SECONDS = 5.0
REFUSED_SECONDS = 30.0
"""A shared credential that its provider refuses is replaced once it is this old. A younger one may not be known there
yet; and whoever gets refusals from a provider at will does not make an engine work at will."""


@dataclass(slots=True)
class _Shared:
    secret: Secret
    held: Held
    replace_ns: int
    margin_ns: int
    used_ns: int
    made_ns: int


@dataclass(frozen=True, slots=True)
class Handed:
    """A credential for one lease that is about to be made.

    Args:
        secret: it.
        life_seconds: of one that cannot be renewed; None: it is, while its lease lives.
        held: by which it is claimed or given up.
    """

    secret: Secret
    life_seconds: int | None
    held: Held


class DynamicKeys:
    """Implements `KeyStore`."""

    def __init__(self, keys: Sequence[DynamicKey], clock: Clock, entropy: Entropy) -> None:
        """Read nothing; until `start` every secret is refused."""
        self._keys = {key.name: key for key in keys}
        self._clock = clock
        self._entropy = entropy
        self._shared: dict[str, _Shared] = {}
        self._reading: dict[str, asyncio.Task[Secret]] = {}
        self._pauses: Pauses[str, SourceFault] = Pauses()
        self._told: dict[str, str] = {}
        self._books: Books | None = None
        self._journal: Journal | None = None
        self._leases: EngineLeases | None = None

    def __repr__(self) -> str:
        """Counts only."""
        return f"DynamicKeys(keys={len(self._keys)}, shared={len(self._shared)}, {self._leases!r})"

    def start(self, books: Books, journal: Journal, stored: Sequence[EngineLease]) -> None:
        """Begin, with what an earlier life left."""
        self._books, self._journal = books, journal
        self._leases = EngineLeases(self._keys, books, journal, self._clock)
        self._leases.resume(stored)

    async def drain(self) -> None:
        """The process stops: revoke what calls shared, within a bound. What is not reached is revoked by the next life.

        What was handed out lives on with its lease.
        """
        if self._leases is None:
            return
        for name in tuple(self._shared):
            self._drop(name)
        self._leases.look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._leases.settled()
        await self._leases.aclose()  # what hangs must not write anything behind the last event

    async def aclose(self) -> None:
        """Stop, forget secrets, let engines go."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._shared.clear()
        if self._leases is not None:
            await self._leases.aclose()
        for engine in {id(key.engine): key.engine for key in self._keys.values()}.values():
            await engine.aclose()

    def records(self) -> Sequence[KeyRecord]:
        """Every rule: whether its engine answers shows when it is needed."""
        return tuple(_record(key) for key in self._keys.values())

    def find(self, name: str) -> KeyRecord | None:
        """See the port."""
        key = self._keys.get(name)
        return None if key is None else _record(key)

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """See the port. Waits for the engine only where no shared credential lives."""
        del models, holder
        key, now = self._known(name), self._clock.now()
        shared = self._shared.get(name)
        if shared is not None and shared.held.wanted and now.boot_ns < shared.held.end_ns - shared.margin_ns:
            shared.used_ns = now.boot_ns
            return shared.secret
        paused = self._pauses.current(name, now)
        if paused is not None and name not in self._reading:
            raise _refusal(name, *paused)
        return await asyncio.shield(self._start(key))

    async def mint(self, name: str, life_seconds_max: int) -> Handed:
        """A credential of its own for one lease. It is given up unless it is claimed.

        Raises:
            Refusal: KEY_UNAVAILABLE, OVERLOADED; DISCLOSURE_NOT_ALLOWED when it would live longer than
                `life_seconds_max` where its engine cannot be reached, or cannot revoke it.
        """
        key = self._known(name)
        life = min(key.life_seconds, life_seconds_max)
        if life >= LIFE_SECONDS_MIN:
            held, answer = await self._read(key, life)
            left = held.end_ns if answer.renewable else self._clock.now().after(answer.life_seconds)
            if self._clock.now().seconds_until(left) <= life_seconds_max:
                # One that is not renewable ends with the token that read it at the latest, and so does its lease.
                seconds = None if answer.renewable else int(self._clock.now().seconds_until(held.end_ns))
                return Handed(answer.value, seconds, held)
            held.wanted = False
            life = answer.life_seconds
        raise Refusal(
            Reason.DISCLOSURE_NOT_ALLOWED,
            f"credentials of key {name!r} live {life} s, and the policy promises that a revocation reaches what was "
            f"handed out within {life_seconds_max} s; ask the platform team to change the role or minted_seconds_max",
        )

    def claim(self, held: Held, lease: Lease, request_id: str, now: Instant) -> Batch:
        """What is made durable with the lease that gets it; from then on it lives and ends with that lease."""
        return self._started().claim(held, lease, request_id, now)

    def give_up(self, held: Held) -> None:
        """No lease came of it: revoke it. One that was claimed is revoked when its lease is not there."""
        if not held.record.lease:
            held.wanted = False

    def forget(self, name: str) -> None:
        """Its provider refuses the shared credential of this key: stop using it, and revoke it, unless it is young."""
        shared = self._shared.get(name)
        if shared is not None and self._clock.now().boot_ns - shared.made_ns >= REFUSED_SECONDS * NANOS:
            self._drop(name)

    def _drop(self, name: str) -> None:
        shared = self._shared.pop(name, None)
        if shared is not None:
            shared.held.wanted = False

    def counts(self) -> tuple[int, int]:
        """Credentials that are not revoked yet, and those of them whose end or renewal fails."""
        return (0, 0) if self._leases is None else self._leases.counts()

    def look(self) -> None:
        """What time brings: to be called often."""
        if self._leases is None:
            return
        now = self._clock.now()
        for name, shared in tuple(self._shared.items()):
            if not shared.held.wanted:
                del self._shared[name]
            elif now.boot_ns - shared.used_ns > IDLE_SECONDS * NANOS:
                if self._in_use(name):
                    shared.used_ns = now.boot_ns  # looked at again after as long
                else:
                    self._drop(name)
            elif shared.held.renew_ns is None and now.boot_ns >= shared.replace_ns:
                self._replace(name, now)
        self._leases.look()

    def _replace(self, name: str, now: Instant) -> None:
        if name not in self._reading and self._pauses.current(name, now) is None:
            self._start(self._keys[name])

    def _in_use(self, name: str) -> bool:
        books = self._books
        if books is None:
            return False
        if any(call.key == name for call in books.calls.values()):
            return True
        live = (lease for lease in books.leases.values() if not lease.ended)
        return any(scope.key == name for lease in live for scope in lease.scopes)

    def _known(self, name: str) -> DynamicKey:
        key = self._keys.get(name)
        if key is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {name!r} is not dynamic here; ask the platform team")
        return key

    def _started(self) -> EngineLeases:
        if self._leases is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, "secret engines are asked only by a sidecar that is running")
        return self._leases

    def _start(self, key: DynamicKey) -> asyncio.Task[Secret]:
        task = self._reading.get(key.name)
        if task is None:
            task = self._reading[key.name] = asyncio.create_task(self._share(key), name="secret engine")
            task.add_done_callback(lambda done: self._over(key.name, done))
        return task

    def _over(self, name: str, done: asyncio.Task[Secret]) -> None:
        del self._reading[name]
        if not done.cancelled():
            done.exception()  # looked at: nobody may be waiting for a replacement

    async def _share(self, key: DynamicKey) -> Secret:
        held, answer = await self._read(key, key.life_seconds)
        now = self._clock.now()
        life_ns = held.end_ns - now.boot_ns
        jitter = int.from_bytes(self._entropy.bytes(2), "big") / 65536
        replace_ns = now.boot_ns + int(life_ns * (REPLACE_AT + REPLACE_JITTER * jitter))
        margin_ns = int(min(LAST_SECONDS * NANOS, life_ns * LAST_SHARE))
        # The one before, if it lives, is what calls under way carry: it is left until its end, then revoked.
        self._shared[key.name] = _Shared(answer.value, held, replace_ns, margin_ns, now.boot_ns, now.boot_ns)
        if self._journal is not None:
            self._journal.note(self._started().claim(held, None, "", now))
        return answer.value

    async def _read(self, key: DynamicKey, life_seconds: int) -> tuple[Held, EngineAnswer]:
        leases = self._started()
        leases.check_room()
        asked = self._clock.now()
        try:
            opened = await key.engine.open(key.name, life_seconds)
            record = EngineLease(
                self._entropy.bytes(12).hex(), key.name, key.version, "", opened.accessor, "", asked.wall_ms
            )
            held = await leases.expect(record, asked.after(opened.life_seconds))
            asked = self._clock.now()
            try:
                answer = await key.engine.read(key.name, opened.accessor)
            except BaseException:
                held.wanted = False
                raise
        except SourceFault as fault:
            self._pauses.failed(key.name, fault, self._clock.now(), fault.retry_after_seconds or 0.0)
            self._not_minted(key, fault)
            raise _refusal(key.name, fault, PAUSE_SECONDS) from None
        self._pauses.over(key.name)
        self._told.pop(key.name, None)
        leases.answered(held, answer, asked)
        return held, answer

    def _not_minted(self, key: DynamicKey, fault: SourceFault) -> None:
        """Failures of one sort are told once until they end."""
        if self._journal is None or self._told.get(key.name) == fault.state.value:
            return
        self._told[key.name] = fault.state.value
        details: Mapping[str, Detail] = {
            "key": key.name,
            "version": key.version,
            "state": fault.state.value,
            "why": str(fault),
        }
        now = self._clock.now()
        event = Event(EventType.KEY_NOT_MINTED, now.wall_ms, Outcome.FAILED, Reason.KEY_UNAVAILABLE, details=details)
        self._journal.note(Batch([event]))


def _record(key: DynamicKey) -> KeyRecord:
    return KeyRecord(
        key.name,
        key.provider,
        key.environment,
        KeyState.ENABLED,
        key.version,
        0,
        KeyKind.DYNAMIC,
        brokered=key.brokered,
    )


def _refusal(name: str, fault: SourceFault, retry_after_seconds: float) -> Refusal:
    return Refusal(
        Reason.KEY_UNAVAILABLE,
        f"no credential could be had for key {name!r}; try again, or ask the platform team",
        detail=f"{fault.state}: {fault}",
        retry_after_seconds=None if fault.state in FINAL else max(0.1, retry_after_seconds),
    )
