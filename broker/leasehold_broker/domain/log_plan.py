"""What one transaction adds to the collector's log. Owns positions, the rows, and the collector's own chain.

Shared by every engine: an engine tells what is stored, lets the plan decide, and stores what the plan gives, in one
transaction that no other writer interleaves. A refusal leaves the plan as it was.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, Linked, chain
from leasehold_broker.domain.audit_link import leaves_of
from leasehold_broker.domain.centre_events import SAID_BY_CENTRE, not_a_sidecars
from leasehold_broker.domain.checked_record import CheckedRecord, ColumnsOf, check_records
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.stream_head import Gap, StreamHead, accept
from leasehold_broker.domain.stream_lives import StreamLives
from leasehold_broker.domain.tiles import Tile, TileEdge


class LogRow(NamedTuple):
    """A record at its place in the log; `life` is the row of its life, `key` the only key that it names."""

    position: int
    life: int
    sequence: int
    receive_wall_ms: int
    wall_ms: int
    type: str
    outcome: str
    lease: str
    issuer: str
    subject: str
    key: str
    previous_digest: bytes
    digest: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class LogWriter:
    """Who writes, and by which words.

    Args:
        stream, epoch: the collector's own stream, and this life of it.
        accept_gaps: let streams go on behind a hole, which is then an event.
        encode: an event to its canonical body.
        columns: what is queried by, out of bodies; ValueError when one of them is no event.
        forbidden: types of events that no sidecar's stream may hold.
    """

    stream: str
    epoch: str
    accept_gaps: bool
    encode: Callable[[Event], bytes]
    columns: ColumnsOf
    forbidden: frozenset[EventType] = SAID_BY_CENTRE

    def check(self, records: Sequence[ChainedRecord]) -> list[CheckedRecord]:
        """What can be checked of records before it is their turn.

        Raises:
            Refusal: those of `check_records`, and `not_a_sidecars`.
        """
        checked = check_records(records, self.columns)
        for record in checked:
            if record.type in self.forbidden and record.stream != self.stream:
                raise not_a_sidecars(record.type, record.stream)
        return checked


@dataclass(slots=True)
class Additions:
    """To be stored together, lives first; `keys` with their positions are those of records that name several."""

    lives: list[tuple[int, StreamHead]] = field(default_factory=list)
    rows: list[LogRow] = field(default_factory=list)
    keys: list[tuple[str, int]] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)


class LogPlan:
    """The log's end as its writer knows it, and what is to be stored after it."""

    def __init__(self, writer: LogWriter, own_streams: Container[str], lives: StreamLives, edge: TileEdge) -> None:
        """Go on from here.

        Args:
            writer: who writes.
            own_streams: of this collector and of its replicas: no sidecar may write them.
            lives: of every stream that will be written, also of the writer's own.
            edge: of the tree over all records.
        """
        self._writer = writer
        self._own_streams = own_streams
        self.lives = lives
        self.edge = edge
        self.position = edge.size
        self._pending = Additions()

    def append(
        self,
        stream: str,
        records: Sequence[CheckedRecord],
        digest_at: Callable[[str, int], bytes | None],
        receive_wall_ms: int,
        leaves: Sequence[bytes] | None = None,
    ) -> StreamHead | None:
        """Accept records of one stream; with the leaves of all of them, where these are hashed already.

        Raises:
            Refusal: AUDIT_CHAIN_BROKEN, AUDIT_EPOCH_FENCED, SIDECAR_BANNED (a collector's own stream).
        """
        if stream in self._own_streams:
            raise own_stream(stream)
        self._check_fence()
        head, earlier = self.lives.head(stream), self.lives.earlier(stream)
        fresh, after, gaps = accept(
            head, earlier, records, digest_at, receive_wall_ms, accept_gaps=self._writer.accept_gaps
        )
        for gap in gaps:  # before the records that follow it: so a verifier knows of it in time
            self.record(_gap_event(gap, receive_wall_ms))
        hashed = leaves if leaves is not None and len(fresh) == len(records) else leaves_of(fresh)
        for tail in self._add(fresh, hashed, receive_wall_ms):
            self.record(_tail_event(tail, receive_wall_ms))
        return after

    def cut_off(self, records: Sequence[Linked], wall_ms: int) -> None:
        """Refused as of a life that is over (AUDIT_EPOCH_FENCED): flag it, if it was taken for whole (A6).

        The life after it said that it had ended. It has gone on, as a copy of it does, and that will never be here.

        Raises:
            Refusal: those of `record`.
        """
        for record in records:
            tail = self.lives.cut_off(record)
            if tail is not None:
                self.record(_tail_event(tail, wall_ms))

    def record(self, event: Event) -> None:
        """Chain an event of the collector itself.

        Raises:
            Refusal: AUDIT_EPOCH_FENCED when a newer life of this collector writes.
        """
        stream, epoch = self._writer.stream, self._writer.epoch
        head = self.lives.head(stream)
        sequence, previous = 1, GENESIS
        self._check_fence()
        if head is not None and head.epoch == epoch:
            sequence, previous = head.sequence + 1, head.digest
        record = chain(stream, epoch, sequence, previous, self._writer.encode(event))
        checked = self._writer.check([record])
        self._add(checked, leaves_of(checked), event.wall_ms)

    def pending_digests(self) -> dict[tuple[int, int], bytes]:
        """Of records that are placed and not yet taken, by life and sequence."""
        return {(row.life, row.sequence): row.digest for row in self._pending.rows}

    def take(self) -> Additions:
        """What is to be stored since the last call."""
        taken, self._pending = self._pending, Additions()
        taken.lives = self.lives.take_touched()
        return taken

    def _check_fence(self) -> None:
        stream = self._writer.stream
        if self._writer.epoch in self.lives.earlier(stream):
            raise Refusal(
                Reason.AUDIT_EPOCH_FENCED,
                f"another collector named {stream!r} has started since and writes this stream; this one must stop",
            )

    def _add(self, records: Sequence[CheckedRecord], leaves: Iterable[bytes], receive_wall_ms: int) -> list[StreamHead]:
        """Place accepted records; gives the lives that they ended with a tail that nobody knows."""
        unknown: list[StreamHead] = []
        pending, position = self._pending, self.position
        rows, keyed, new = pending.rows, pending.keys, tuple.__new__  # LogRow() would be one more call
        life, epoch, last = 0, "", len(records) - 1
        for at, record in enumerate(records):
            (
                _, of, sequence, previous_digest, digest, body,
                type_, wall_ms, outcome, lease, issuer, subject, keys, previous,
            ) = record  # fmt: skip
            position += 1
            # Between the first and the last of a life nothing looks at its head.
            if of != epoch or at == last or records[at + 1].epoch != epoch:
                life, ended = self.lives.follow(record, type_, previous, receive_wall_ms)
                unknown += () if ended is None else (ended,)
                epoch = of
            key = ""
            if len(keys) == 1:
                key = keys[0]
            else:
                keyed.extend([(one, position) for one in keys])
            rows.append(
                new(
                    LogRow,
                    (
                        position, life, sequence, receive_wall_ms, wall_ms, type_, outcome, lease, issuer, subject, key,
                        previous_digest, digest, body,
                    ),
                )
            )  # fmt: skip
        pending.tiles.extend(self.edge.append(leaves))
        self.position = position
        return unknown


def own_stream(stream: str) -> Refusal:
    """What a sidecar is told that has a collector's name."""
    return Refusal(Reason.SIDECAR_BANNED, f"{stream!r} is the collector's own stream; give this sidecar another name")


def _gap_event(gap: Gap, wall_ms: int) -> Event:
    details: dict[str, Detail] = {
        "gap_stream": gap.stream,
        "gap_epoch": gap.epoch,
        "first_missing": gap.first,
        "last_missing": gap.last,
        "digest": gap.digest.hex(),
    }
    return Event(EventType.AUDIT_GAP_ACCEPTED, wall_ms, Outcome.FAILED, details=details)


def _tail_event(tail: StreamHead, wall_ms: int) -> Event:
    details: dict[str, Detail] = {
        "tail_stream": tail.stream,
        "tail_epoch": tail.epoch,
        "last_sequence": tail.sequence,
        "digest": tail.digest.hex(),
    }
    return Event(EventType.AUDIT_TAIL_UNKNOWN, wall_ms, Outcome.FAILED, details=details)
