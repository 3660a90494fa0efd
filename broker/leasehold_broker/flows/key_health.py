"""Whether providers take our keys. Owns what an answer says of the key it was asked with, probes, and who is told.

An agent chooses its requests, so one refusal proves nothing of the key: a 401 or 403 (Google's 400 with its reason)
asks for a probe, a harmless call of ours; only what the provider says to that takes a key out. A 429 or 402 makes a key
rest for a while, as long as the provider says; longer where it says that the account has nothing left, which is told.
While a key rests others are preferred, and it serves where there is no other. What was taken out is probed again from
time to time, and is back with the provider's word or with its next version.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from leasehold_broker.domain.call import CallOutcome
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyMark, KeyMarkKind, KeyRecord, KeyState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_probe import KeyProbe
from leasehold_broker.ports.key_store import KeyStore
from leasehold_broker.ports.state_store import Change

PROBE_EVERY_SECONDS = 30.0
"""A key is probed no more often, however often its calls are refused."""
PROBE_OUT_SECONDS = 300.0
"""A key that was taken out is probed again after this."""
REST_SECONDS, REST_SECONDS_MAX = 5.0, 60.0
"""After a 429 or 402; doubled with each that follows."""
REST_SECONDS_MIN, REST_TOLD_SECONDS_MAX = 1.0, 600.0
"""What a provider asks for is kept to within these."""
REST_EXHAUSTED_SECONDS = 300.0
"""After the word that the account has nothing left; then one call tries again."""
REFUSALS = 3
"""Where there is no harmless call: so often in a row has the provider to say in its own words that a key is no good."""
BACK = "back"
USED_EVERY_MS = 3600 * 1000
"""The last use of a key is written down no more often."""


@dataclass(slots=True)
class _Health:
    version: int
    out: bool = False
    suspected: bool = False
    rest_until_ns: int = 0
    rest_seconds: float = 0.0
    exhausted: bool = False
    probed_ns: int | None = None
    refusals: int = 0
    told: bool = False


class KeyHealth:
    """Implements `KeyStore` over another: a key that its provider refuses is disabled here."""

    def __init__(
        self,
        keys: KeyStore,
        books: Books,
        journal: Journal,
        clock: Clock,
        probe: KeyProbe,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Watch over `keys`; `probe` asks their providers; `on_refused` is told of each 401, whatever it means."""
        self._on_refused = on_refused
        self._keys = keys
        self._books = books
        self._journal = journal
        self._clock = clock
        self._probe = probe
        self._health: dict[str, _Health] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}

    # as a key store

    def records(self) -> Sequence[KeyRecord]:
        """See the port."""
        return tuple(self._seen(record) for record in self._keys.records())

    def find(self, name: str) -> KeyRecord | None:
        """See the port."""
        record = self._keys.find(name)
        return None if record is None else self._seen(record)

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """See the port."""
        record = self.find(name)
        if record is not None and self._of(record).out:
            raise Refusal(
                Reason.KEY_DISABLED,
                f"the provider refuses key {name!r}, and no other granted key can serve; ask the platform team",
            )
        return await self._keys.secret(name, models, holder)

    # what calls tell and ask

    def resting(self, name: str) -> bool:
        """True while others are to be preferred to this key."""
        health = self._health.get(name)
        return health is not None and self._clock.now().boot_ns < health.rest_until_ns

    def used(self, record: KeyRecord) -> list[Change]:
        """What is written down with a call that uses this key."""
        known, now = self._books.key_marks.get((record.name, KeyMarkKind.USED)), self._clock.now()
        if known is not None and known.version == record.version and now.wall_ms - known.wall_ms < USED_EVERY_MS:
            return []
        return [self._books.put_key_mark(KeyMark(record.name, record.version, KeyMarkKind.USED, now.wall_ms))]

    def observe(self, name: str, version: int, outcome: CallOutcome) -> Batch:
        """A call with this version of the key ended so; what is to be written down with that."""
        record, status = self._keys.find(name), outcome.status
        if record is None or record.version != version or not status:
            return Batch()
        health = self._of(record)
        unproven = self._unprobed(record, health, outcome)
        if unproven is not None:
            return unproven
        if (status in {401, 403} or outcome.refused) and not health.out and not outcome.exhausted:
            if status == 401 or outcome.refused:
                self._on_refused(name)
            health.suspected = True
            self.look()
        if status < 300:
            health.rest_seconds = 0.0
        elif outcome.exhausted or status in {402, 429}:
            self._rest(health, outcome)
        if health.exhausted == outcome.exhausted or (health.exhausted and status >= 300):
            return Batch()
        health.exhausted = outcome.exhausted
        kind = EventType.KEY_EXHAUSTED if health.exhausted else EventType.KEY_REPLENISHED
        return self._told(record, kind, KeyMarkKind.EXHAUSTED, status)

    def _unprobed(self, record: KeyRecord, health: _Health, outcome: CallOutcome) -> Batch | None:
        """What a call says of a key whose provider has no harmless call; None when that is nothing of this kind.

        The provider's own words have to do, which no agent can bring about. A success takes the key back.
        """
        if self._probe.asks(record.provider) or not (outcome.refused or (health.refusals and outcome.status < 300)):
            return None
        if outcome.refused:
            self._on_refused(record.name)
            health.refusals += 1
            health.out = health.refusals >= REFUSALS
            health.probed_ns = self._clock.now().boot_ns
            if not health.out or health.told:
                return Batch()
            health.told = True
            self._books.counters.keys_taken_out += 1
            return self._told(record, EventType.KEY_TAKEN_OUT, KeyMarkKind.REFUSED, outcome.status)
        health.refusals, health.out = 0, False
        if not health.told:
            return None
        health.told = False
        return self._told(record, EventType.KEY_TAKEN_BACK, KeyMarkKind.REFUSED, outcome.status)

    def _rest(self, health: _Health, outcome: CallOutcome) -> None:
        """Others are preferred for as long as the provider says, or else for longer each time."""
        health.rest_seconds = min(REST_SECONDS_MAX, 2 * health.rest_seconds or REST_SECONDS)
        wait = health.rest_seconds
        if outcome.wait_seconds is not None:
            wait = min(max(outcome.wait_seconds, REST_SECONDS_MIN), REST_TOLD_SECONDS_MAX)
        if outcome.exhausted:
            wait = max(wait, REST_EXHAUSTED_SECONDS)
        health.rest_until_ns = self._clock.now().after(wait)

    def look(self) -> None:
        """Start the probes that are due; called when there is a suspicion, and once a sweep."""
        now_ns = self._clock.now().boot_ns
        for name, health in self._health.items():
            every = PROBE_OUT_SECONDS if health.out else PROBE_EVERY_SECONDS
            due = health.probed_ns is None or now_ns - health.probed_ns >= every * NANOS
            if health.out and due and not self._asks(name):
                health.out, health.refusals = False, REFUSALS - 1  # one call tries
            elif (health.out or health.suspected) and due and name not in self._probing:
                health.probed_ns, health.suspected = now_ns, False
                task = asyncio.get_running_loop().create_task(self._ask(name, health.version), name="key probe")
                self._probing[name] = task
                task.add_done_callback(lambda _, name=name: self._probing.pop(name, None))  # type: ignore[misc]

    def out_count(self) -> int:
        """Keys that are taken out, for metrics."""
        return sum(health.out for health in self._health.values())

    async def aclose(self) -> None:
        """Stop probing."""
        tasks = list(self._probing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # inside

    def _of(self, record: KeyRecord) -> _Health:
        health = self._health.get(record.name)
        if health is None or health.version != record.version:
            out, exhausted = (self._marked(record, kind) for kind in (KeyMarkKind.REFUSED, KeyMarkKind.EXHAUSTED))
            health = self._health[record.name] = _Health(record.version, out=out, exhausted=exhausted, told=out)
        return health

    def _asks(self, name: str) -> bool:
        record = self._keys.find(name)
        return record is None or self._probe.asks(record.provider)

    def _marked(self, record: KeyRecord, kind: KeyMarkKind) -> bool:
        mark = self._books.key_marks.get((record.name, kind))
        return mark is not None and mark.version == record.version and not mark.lease

    def _seen(self, record: KeyRecord) -> KeyRecord:
        return replace(record, state=KeyState.DISABLED) if self._of(record).out else record

    async def _ask(self, name: str, version: int) -> None:
        record = self._keys.find(name)
        if record is None or record.version != version:
            return
        try:
            status = await self._probe.probe(record, await self._keys.secret(name))
        except Refusal:
            return  # no key to ask with: that is told elsewhere
        health = self._of(record)
        if health.version != version or not status:
            return
        if status == 401 and not health.out:
            health.out = True
            await self._tell(record, EventType.KEY_TAKEN_OUT, status)
        elif status < 300 and health.out:
            health.out = False
            await self._tell(record, EventType.KEY_TAKEN_BACK, status)

    async def _tell(self, record: KeyRecord, kind: EventType, status: int) -> None:
        self._books.counters.keys_taken_out += kind is EventType.KEY_TAKEN_OUT
        await self._journal.ending(self._told(record, kind, KeyMarkKind.REFUSED, status))

    def _told(self, record: KeyRecord, kind: EventType, mark: KeyMarkKind, status: int) -> Batch:
        """The event, and the mark by which a restart knows of it."""
        now, trouble = self._clock.now(), kind in {EventType.KEY_TAKEN_OUT, EventType.KEY_EXHAUSTED}
        event = Event(
            kind,
            now.wall_ms,
            Outcome.FAILED if trouble else Outcome.ALLOWED,
            Reason.KEY_DISABLED if kind is EventType.KEY_TAKEN_OUT else None,
            details={
                "key": record.name,
                "version": record.version,
                "provider": record.provider,
                "environment": record.environment,
                "status": status,
            },
        )
        # A mark for a key that is back names itself: so that a restart does not begin with what is over.
        put = KeyMark(record.name, record.version, mark, now.wall_ms, "" if trouble else BACK)
        return Batch([event], [self._books.put_key_mark(put)])
