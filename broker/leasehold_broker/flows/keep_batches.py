"""Take records into a stream that many replicas write at once, before the log has them. Owns what is acknowledged then.

A batch is acknowledged once the stream keeps it; so everything that could make the log refuse it is decided before. Of
each sidecar this replica knows the end of what was kept, and the place of that batch: a batch that goes on there needs
no more. Anything else (a first record, a new life, repeats, a gap, a fork) waits until the log has all that is kept of
this sidecar, and is decided by the log. Either way it is kept only if the sidecar's last batch is still the one that
this was decided after; so of two copies of a sidecar at two replicas one is first, and the other is decided anew.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from leasehold_broker.domain.audit_chain import ChainedRecord, ChainEnd, goes_on
from leasehold_broker.domain.checked_record import CheckedRecord
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.ports.ingest_log import IngestLog, IngestState
from leasehold_broker.ports.ingest_stream import IngestMovedError, IngestStream

KNOWN_MAX = 50_000
BATCH_BYTES_MAX = 480 * 1024
"""Of bodies in one batch that is kept: with all that goes beside them it stays below a server's 1 MiB."""
ATTEMPTS_MAX = 5
COMMIT_SECONDS_MAX = 20.0
FOLLOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Known:
    """What is kept of one sidecar: where it ends (None: what the log says), and the place of its last batch."""

    end: ChainEnd | None
    after: int

    def goes_on(self, checked: Sequence[CheckedRecord]) -> bool:
        """True when the records are the next of the life that ends there."""
        return self.end is not None and goes_on(self.end.epoch, self.end.sequence, self.end.digest, checked)


class KeepBatches:
    """Implements `RecordTaker` for one replica."""

    def __init__(self, kept: IngestStream, log: IngestLog, fail: Callable[[str], None]) -> None:
        """Keep there.

        Args:
            kept: the stream.
            log: that will have the records.
            fail: told when this is not the stream that the log takes in: nothing may go on then.
        """
        self._kept = kept
        self._log = log
        self._fail = fail
        self._state: IngestState | None = None
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._turns: dict[str, asyncio.Lock] = {}
        self._moved = asyncio.Event()
        self.open = False
        self.kept_last = 0
        self.healed = 0
        self.sessions = 0

    @property
    def waiting(self) -> int:
        """Batches that are kept and not yet in the log, as far as is known here."""
        return 0 if self._state is None else max(0, self.kept_last - self._state.sequence)

    async def run(self) -> None:
        """One session with the stream.

        Raises:
            Refusal: STORE_UNAVAILABLE: it could not begin, or it is over.
        """
        state = await self._kept.connect()
        try:
            await self._bind(state.incarnation, state.last)
            ends = asyncio.ensure_future(self._kept.ended())
            try:
                while not ends.done():
                    await asyncio.wait([ends], timeout=FOLLOW_SECONDS)
                    await self._follow()
            finally:
                ends.cancel()
        finally:
            self.open = False
            self._known.clear()
        raise _away("its connection is gone")

    async def append(self, stream: str, records: Sequence[ChainedRecord], receive_wall_ms: int) -> StreamHead | None:
        """As the port says; what is acknowledged is in the log soon."""
        checked = self._log.check(records)
        lock = self._turns.setdefault(stream, asyncio.Lock())
        try:
            async with lock:
                return await self._append(stream, checked, receive_wall_ms)
        finally:
            if not lock.locked() and self._turns.get(stream) is lock:
                del self._turns[stream]

    async def committed(self, sequence: int) -> None:
        """Return once the log has what was kept up to this place.

        Raises:
            Refusal: STORE_UNAVAILABLE: it does not have it in time.
        """
        try:
            async with asyncio.timeout(COMMIT_SECONDS_MAX):
                while self._state is None or self._state.sequence < sequence:
                    await self._moved.wait()
        except TimeoutError:
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the collector's log is behind what was kept for it; send this again",
                retry_after_seconds=2.0,
            ) from None

    def took_in(self, sequence: int, aside: Collection[str]) -> None:
        """The log has everything up to this place but what it put aside; told by who takes in, where that is here."""
        if self._state is not None and sequence > self._state.sequence:
            self._now(replace(self._state, sequence=sequence, refused=self._state.refused.union(aside)))

    async def _append(self, stream: str, checked: Sequence[CheckedRecord], receive_wall_ms: int) -> StreamHead | None:
        for _ in range(ATTEMPTS_MAX):
            self._must_be_open(stream)
            known = self._known.get(stream)
            follows = known is not None and known.goes_on(checked)
            if known is None or not follows:
                known = await self._look(stream)  # it may have gone on through another replica
                follows = known.goes_on(checked)
            if follows:
                fresh: Sequence[CheckedRecord] = checked
                head: StreamHead | None = None
            else:
                await self.committed(known.after)
                self._must_be_open(stream)
                judged = await self._log.judge(stream, checked, receive_wall_ms)
                fresh, head = judged.fresh, judged.head
            try:
                return await self._keep(stream, fresh, receive_wall_ms, known, head)
            except IngestMovedError:
                self._known.pop(stream, None)
            except BaseException:
                self._known.pop(stream, None)  # whether it was kept is not known
                raise
        raise Refusal(
            Reason.OVERLOADED,
            f"stream {stream!r} is written at another replica at the same time; send this again",
            retry_after_seconds=1.0,
        )

    async def _keep(
        self,
        stream: str,
        fresh: Sequence[CheckedRecord],
        receive_wall_ms: int,
        known: _Known,
        head: StreamHead | None,
    ) -> StreamHead | None:
        for part in parts(fresh):
            sequence = await self._kept.keep(stream, part, receive_wall_ms, known.after)
            if self._state is None or sequence <= self._state.sequence:
                raise _away("it numbers batches that the log has had")
            record = part[-1]
            known = _Known(ChainEnd(record.epoch, record.sequence, record.digest), sequence)
            head = StreamHead(stream, record.epoch, record.sequence, record.digest, receive_wall_ms)
            self.kept_last = max(self.kept_last, sequence)
        if known.end is not None:
            self._known[stream] = known
            self._known.move_to_end(stream)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return head

    async def _look(self, stream: str) -> _Known:
        """First the stream, then the log: what the first has forgotten by now, the second has."""
        last = await self._kept.last(stream)
        if last is None:
            return _Known(None, 0)
        if not last.records:
            return _Known(None, last.sequence)
        record = last.records[-1]
        return _Known(ChainEnd(record.epoch, record.sequence, record.digest), last.sequence)

    def _must_be_open(self, stream: str) -> None:
        if not self.open or self._state is None:
            raise _away("it is not connected")
        if stream in self._state.refused:
            raise Refusal(
                Reason.AUDIT_CHAIN_BROKEN,
                f"stream {stream!r}: a batch of it could not be taken into the log and was put aside; the operators of "
                "the collector must look at it first",
            )

    async def _bind(self, incarnation: str, last: int) -> None:
        """Hold stream and log against each other before anything is acknowledged."""
        state = await self._log.bind(incarnation)
        if state.incarnation != incarnation:
            self._fail(
                "the ingest stream is not the one that this log takes in: it was made anew, or the database belongs to "
                "another; see deploy/scale.md"
            )
            raise _away("it is another stream")
        if last < state.sequence:
            # The server lost its end, which the log had; numbers must not come a second time.
            await self._kept.forget(state.sequence)
            self.healed += 1
        self.kept_last = max(last, state.sequence)
        self._now(state)
        self.sessions += 1
        self.open = True

    async def _follow(self) -> None:
        try:
            self._now(await self._log.ingest_state())
        except Refusal:
            return  # what goes on where it ended needs no log

    def _now(self, state: IngestState) -> None:
        if self._state is not None and state.sequence < self._state.sequence:
            state = replace(state, sequence=self._state.sequence)
        self._state = state
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def parts(checked: Sequence[CheckedRecord]) -> list[Sequence[CheckedRecord]]:
    """Cut so that each part can be kept as one."""
    found: list[Sequence[CheckedRecord]] = []
    first = size = 0
    for at, one in enumerate(checked):
        more = len(one.body)
        if at > first and size + more > BATCH_BYTES_MAX:
            found.append(checked[first:at])
            first, size = at, 0
        size += more
    return [*found, checked[first:]] if checked else found


def _away(why: str) -> Refusal:
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        "the collector's ingest stream is not available; its operators must look at NATS",
        detail=why,
        retry_after_seconds=2.0,
    )
