"""The keys of one store elsewhere, in memory: read behind, served for a bounded time, dropped at the store's word.

Owns how old a key may be and how often the store is asked. An outage of the store stops nothing until a key is older
than `stale_seconds_max`, counted on the boot clock from when it was last read; then it stops. A clear no of the store
(gone, denied, disabled) stops a key at once. Refuses to serve a version older than one it has seen.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.key_source import FINAL, WHOLE_STORE, KeySource, SourcedKey, SourceFault, SourceState

ASK_AGAIN_SECONDS = 1.0
"""A store that failed is asked again because of a call no sooner than this."""
START_SECONDS_MAX = 20.0
"""How long a start waits for the first reading; after that it goes on without, and calls are refused until it comes."""


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """How fresh keys are.

    Args:
        refresh_seconds: how often each is read; so long may a new version go unnoticed.
        stale_seconds_max: how long one serves after it was last read.
    """

    refresh_seconds: float
    stale_seconds_max: float


@dataclass(frozen=True, slots=True)
class Listed:
    """A key that the configuration names: all that is known of it before its store has answered."""

    name: str
    provider: str
    environment: str


@dataclass(frozen=True, slots=True)
class SourceChange:
    """A key of the store, or the store for that key, stands otherwise than before.

    Args:
        key: its name.
        state: how it stands now.
        version: in memory, 0 when there is none.
        why: one sentence; "" when it serves.
    """

    key: str
    state: SourceState
    version: int
    why: str = ""


@dataclass(slots=True)
class _Held:
    record: KeyRecord
    secret: Secret
    read_ns: int


class SourcedKeys:
    """Implements `KeyStore` over a `KeySource`."""

    def __init__(
        self,
        source: KeySource,
        listed: Sequence[Listed],
        bounds: KeyBounds,
        clock: Clock,
        entropy: Entropy,
        on_change: Callable[[SourceChange], None] = lambda _: None,
    ) -> None:
        """Read nothing yet; `on_change` is told, synchronously, once for each change."""
        self._source = source
        self._listed = {each.name: each for each in listed}
        self._bounds = bounds
        self._clock = clock
        self._entropy = entropy
        self._on_change = on_change
        self._held: dict[str, _Held] = {}
        self._faults: dict[str, SourceFault] = {}
        self._newest: dict[str, tuple[str, int]] = {}
        self._told: dict[str, tuple[SourceState, int]] = {}
        self._asked_ns: int | None = None
        self._round: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read every key once, within a bound, then go on behind."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS_MAX):
                await self.refresh()
        self._loop_task = asyncio.create_task(self._go_on(), name="key store refresh")

    async def aclose(self) -> None:
        """Stop reading, forget every key."""
        for task in (self._loop_task, self._round):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._held.clear()
        await self._source.aclose()

    def states(self) -> Mapping[str, SourceState]:
        """How each key stands, for metrics."""
        return {name: self._told[name][0] if name in self._told else SourceState.UNREACHABLE for name in self._listed}

    def records(self) -> Sequence[KeyRecord]:
        """The public part of every key that may serve now."""
        return tuple(held.record for name in self._listed if (held := self._fresh(name)) is not None)

    def find(self, name: str) -> KeyRecord | None:
        """The public part of one key that may serve now, or None."""
        held = self._fresh(name)
        return None if held is None else held.record

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """See the port. A key that has become too old makes the store be asked at once, by all callers together."""
        del models, holder
        listed = self._listed.get(name)
        if listed is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {name!r} is in no store; ask the platform team to add it")
        held = self._fresh(name)
        reading = self._round is not None and not self._round.done()
        if held is None and (reading or self._may_ask()):
            await self.refresh()
            held = self._fresh(name)
        if held is not None:
            return held.secret
        fault = self._faults.get(name)
        if fault is not None and fault.state is SourceState.DISABLED:
            raise Refusal(Reason.KEY_DISABLED, f"key {name!r} is disabled; ask the platform team", detail=str(fault))
        detail = "not read yet" if fault is None else f"{fault.state}: {fault}"
        raise Refusal(
            Reason.KEY_UNAVAILABLE,
            f"key {name!r} cannot be had from its store now; try again, or ask the platform team",
            detail=detail,
            retry_after_seconds=None if fault is not None and fault.state in FINAL else ASK_AGAIN_SECONDS,
        )

    def nudge(self) -> None:
        """Something suggests that a key has changed: read soon instead of at the end of the interval."""
        if self._may_ask():
            self._wake.set()

    async def refresh(self) -> None:
        """Read every key once; those who ask meanwhile wait for the same round."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._read_all(), name="key store round")
        await asyncio.shield(self._round)

    def _may_ask(self) -> bool:
        now = self._clock.now().boot_ns
        return self._asked_ns is None or now - self._asked_ns >= ASK_AGAIN_SECONDS * NANOS

    def _fresh(self, name: str) -> _Held | None:
        held = self._held.get(name)
        if held is None:
            return None
        if self._clock.now().boot_ns - held.read_ns > self._bounds.stale_seconds_max * NANOS:
            return None
        return held

    async def _go_on(self) -> None:
        while True:
            pause = self._pause_seconds()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            await self.refresh()

    def _pause_seconds(self) -> float:
        """The interval, shortened by up to a fifth, so that a fleet that started together does not ask together."""
        jitter = int.from_bytes(self._entropy.bytes(2), "big") / 65536
        pause = self._bounds.refresh_seconds * (0.8 + 0.2 * jitter)
        asked = [fault.retry_after_seconds for fault in self._faults.values() if fault.retry_after_seconds]
        return max([pause, *(min(seconds, 300.0) for seconds in asked)])

    async def _read_all(self) -> None:
        whole: SourceFault | None = None
        for name in self._listed:
            self._asked_ns = self._clock.now().boot_ns
            if whole is None:
                try:
                    found = await self._source.read(name)
                except SourceFault as fault:
                    self._failed(name, fault)
                    whole = fault if fault.state in WHOLE_STORE else None
                except Exception as surprise:  # noqa: BLE001 - it must not end the reading of all keys, for good
                    why = f"what the store answered could not be read ({type(surprise).__name__})"
                    self._failed(name, SourceFault(SourceState.MALFORMED, why))
                else:
                    self._took(name, found, self._asked_ns)
            else:
                self._failed(name, whole)

    def _took(self, name: str, found: SourcedKey, asked_ns: int) -> None:
        id_before, version = self._newest.get(name, ("", 0))
        if found.number is not None and found.number < version:
            why = (
                f"version {found.number} of {name!r} is older than {version}, which was read before: the store was "
                "set back; restart to accept it"
            )
            self._failed(name, SourceFault(SourceState.MALFORMED, why))
            return
        if found.number is not None:
            version = found.number
        elif found.id != id_before:
            # The store gives its versions no order: the time of storing does, or at least ours of noticing.
            version = max(version + 1, found.created_wall_ms)
        listed = self._listed[name]
        record = KeyRecord(name, listed.provider, listed.environment, KeyState.ENABLED, version, found.created_wall_ms)
        self._newest[name] = (found.id, version)
        self._faults.pop(name, None)
        self._held[name] = _Held(record, found.value, asked_ns)
        self._tell(SourceChange(name, SourceState.SERVING, version))

    def _failed(self, name: str, fault: SourceFault) -> None:
        self._faults[name] = fault
        if fault.state in FINAL:
            self._held.pop(name, None)
        held = self._fresh(name)  # that one has become too old to serve is told as well
        self._tell(SourceChange(name, fault.state, 0 if held is None else held.record.version, str(fault)))

    def _tell(self, change: SourceChange) -> None:
        if self._told.get(change.key) != (change.state, change.version):
            self._told[change.key] = (change.state, change.version)
            self._on_change(change)
