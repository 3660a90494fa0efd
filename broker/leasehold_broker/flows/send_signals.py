"""Tell other systems what was revoked. Owns the place of each stream in the log, which is its queue, pushed or polled.

At least once: a token is the same whenever it is made, and its `jti` with it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.outgoing_signals import Claims, SignalStream, outgoing
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.log_followers import LogFollowers
from leasehold_broker.ports.signal_receiver import (
    SignalNotSentError,
    SignalNotTakenError,
    SignalReceiver,
    SignalSigner,
)

PREFIX = "signals/"
PAGE_RECORDS = 200
PAGES_MAX = 50
"""Read for one question of a poll, when nothing in them is told."""
OFFERED_MAX = 100
GATHER_SECONDS = 0.05
RETRY_FIRST_SECONDS = 0.5
RETRY_SECONDS_MAX = 300.0
PLACE_EVERY_RECORDS = 5000

ReadEvent = Callable[[bytes], Event]


@dataclass(slots=True)
class StreamState:
    """Where one stream stands."""

    position: int = 0
    told: int = 0
    refused: int = 0
    failing: str = ""


class Telling:
    """What pushing and offering have in common: a place in the log, and the claims of what is told from there."""

    alone = False
    """Only one replica moves the place. A receiver that polls may ask any of them."""

    def __init__(
        self, stream: SignalStream, store: EventStore, followers: LogFollowers, read: ReadEvent, signer: SignalSigner
    ) -> None:
        """For this stream; `start` comes first."""
        self.stream = stream
        self.state = StreamState()
        self.signer = signer
        self.store = store
        self._followers = followers
        self._read = read
        self._name = PREFIX + stream.name
        self._written = 0

    async def start(self) -> None:
        """Take up where it was; a new stream begins with what comes next.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        known = await self._followers.follower(self._name)
        position = self.store.last_position() if known is None else min(known.position, self.store.last_position())
        if known is None:
            await self._followers.advance(self._name, position, {})
        self.state.position = position
        self._written = position if known is None else known.position

    async def note(self, position: int, events: Sequence[Event] = (), *, told: bool = True) -> None:
        """Everything up to there is told.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        if told or events or position - self._written >= PLACE_EVERY_RECORDS:
            since = self._written if self.alone else None
            await self._followers.advance(self._name, position, {}, events, since=since)
            self._written = position
        self.state.position = position

    def claims(self, stored: StoredRecord) -> Claims | None:
        """What is told of a record; None for nothing."""
        record = stored.record
        if not record.body:
            return None
        try:
            event = self._read(record.body)
        except ValueError:
            return None  # of a newer version than ours
        place = f"{record.stream}/{record.epoch}/{record.sequence}"
        return outgoing(event, place, stored.receive_wall_ms, self.stream)

    def refused(self, token_id: str, why: str, wall_ms: int) -> Event:
        """The event of a token that its receiver will not have."""
        self.state.refused += 1
        details: dict[str, Detail] = {"stream": self.stream.name, "token_id": token_id, "message": why}
        return Event(EventType.SIGNAL_NOT_TAKEN, wall_ms, Outcome.FAILED, details=details)


class PushSignals(Telling):
    """Pushes one stream's tokens (RFC 8935)."""

    alone = True
    receiver: SignalReceiver

    def to(self, receiver: SignalReceiver) -> "PushSignals":
        """Push there."""
        self.receiver = receiver
        return self

    async def run(self) -> None:
        """Push until cancelled; a receiver that is away is waited for."""
        attempt = 0
        while True:
            try:
                await self.store.wait_for_more(self.state.position)
                full = await self.step()
            except (SignalNotSentError, Refusal) as failure:
                self.state.failing = str(failure) or type(failure).__name__
                await asyncio.sleep(min(RETRY_SECONDS_MAX, RETRY_FIRST_SECONDS * 2.0 ** min(attempt, 30)))
                attempt += 1
                if isinstance(failure, Refusal) and failure.reason is Reason.CONCURRENT_UPDATE:
                    with contextlib.suppress(Refusal):
                        await self.start()
                continue
            attempt, self.state.failing = 0, ""
            if not full:
                await asyncio.sleep(GATHER_SECONDS)

    async def step(self) -> bool:
        """Look at one page. True when there may be more at once.

        Raises:
            SignalNotSentError, Refusal: the place has not moved beyond what was told.
        """
        page = await self.store.page(EventFilter(), self.state.position, PAGE_RECORDS)
        for stored in page:
            claims = self.claims(stored)
            if claims is None:
                continue
            events: list[Event] = []
            try:
                await self.receiver.push(self.signer.sign(claims))
                self.state.told += 1
            except SignalNotTakenError as refused:
                events = [self.refused(str(claims["jti"]), str(refused), stored.receive_wall_ms)]
            await self.note(stored.position, events)
        if page:
            await self.note(page[-1].position, told=False)
        return len(page) == PAGE_RECORDS


class OfferSignals(Telling):
    """Offers one stream's tokens to a receiver that polls (RFC 8936)."""

    _offered: dict[str, tuple[int, Claims]]
    _read_to: int
    _turn: asyncio.Lock

    async def start(self) -> None:
        """As above; what was offered and not acknowledged is offered again."""
        await super().start()
        self._offered = {}
        self._turn = asyncio.Lock()
        self._read_to = self.state.position

    async def poll(
        self, count_max: int, taken: Sequence[str], refused: Mapping[str, str], now_wall_ms: int
    ) -> tuple[dict[str, str], bool]:
        """Drop what was taken or refused, and give what is next.

        Args:
            count_max: at most so many tokens.
            taken: `jti` of tokens that the receiver has.
            refused: why, by `jti`, of those that it will not have.
            now_wall_ms: for the events of those.

        Returns:
            Tokens by `jti`, and whether there are more.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED; the receiver asks the same again.
        """
        async with self._turn:
            return await self._poll(count_max, taken, refused, now_wall_ms)

    async def more(self) -> None:
        """Return once the log has something that no question has looked at; that it is told is not said."""
        await self.store.wait_for_more(self._read_to)
        await asyncio.sleep(GATHER_SECONDS)

    async def _poll(
        self, count_max: int, taken: Sequence[str], refused: Mapping[str, str], now_wall_ms: int
    ) -> tuple[dict[str, str], bool]:
        known = [name for name in (*taken, *refused) if name in self._offered]
        events = [self.refused(name, refused[name], now_wall_ms) for name in known if name in refused]
        left = {name: offer for name, offer in self._offered.items() if name not in known}
        position = min((position for position, _ in left.values()), default=self._read_to + 1) - 1
        if known:
            await self.note(position, events)
            self.state.told += len(known) - len(events)
        self._offered = left
        await self._fill(count_max)
        chosen = list(self._offered.items())[:count_max]
        more = len(self._offered) > len(chosen) or self._read_to < self.store.last_position()
        return {name: self.signer.sign(claims) for name, (_, claims) in chosen}, more

    async def _fill(self, count_max: int) -> None:
        for _ in range(PAGES_MAX):
            if len(self._offered) >= max(1, min(count_max, OFFERED_MAX)):
                return
            page = await self.store.page(EventFilter(), self._read_to, PAGE_RECORDS)
            if not page:
                break
            for stored in page:
                claims = self.claims(stored)
                if claims is not None:
                    self._offered[str(claims["jti"])] = (stored.position, claims)
            self._read_to = page[-1].position
        if not self._offered:
            await self.note(self._read_to, told=False)
