"""A1 to A8: what the world knows of every record that became durable anywhere, held against what the log says.

Cheap forms run at each commit, acknowledgement and checkpoint; `prove` and `whole` are for intervals and the end.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.fakes.replay import Replay, replayed

from leasehold.audit import Record, verify
from leasehold.audit_copy import verify_copy
from leasehold.checkpoint import Checkpoint
from leasehold.errors import LeaseholdError
from leasehold.merkle import consistent, fold, leaf_hash
from leasehold.note import VerifierKey
from leasehold.tiles import write_copy
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.events import Outcome
from leasehold_broker.domain.stream_head import LifeState
from leasehold_broker.ports.outbox import PendingRecord

CANARIES = (b"canary", b"lhs_")
"""Keys of the simulated providers hold the first, every lease token the second: no event may (A8)."""
ROWS = (
    "SELECT e.position, l.stream, l.epoch, e.sequence, e.previous_digest, e.digest, e.body "
    "FROM events e JOIN lives l ON l.id = e.life WHERE e.position > ? ORDER BY e.position"
)
OWN = "centre"
FOLDED_SECONDS = 0.01
Life = tuple[str, str]


class AuditTruth:
    """Everything that was emitted, accepted, acknowledged and signed."""

    def __init__(
        self,
        seen: Counter[str],
        trace: Any,
        now: Callable[[], float],
        own: Callable[[bytes], None],
        emitted: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        """Nothing yet.

        Args:
            seen: counters of the world.
            trace: of the world.
            now: virtual seconds.
            own: told the events of the collector itself, as they become durable.
            emitted: told those of sidecars: stream, life, event.
        """
        self._own = own
        self._emitted = emitted
        self._now = now
        self._folded_at: dict[str, float] = {}
        self._seen = seen
        self._trace = trace
        self.emitted: defaultdict[Life, list[bytes]] = defaultdict(list)
        """Digests of each life in order; sequence n at index n - 1."""
        self.accepted: defaultdict[Life, int] = defaultdict(int)
        self.entries: list[Record] = []
        """The collector's log as its disk has it."""
        self.checkpoints: list[Checkpoint] = []
        self.calls: dict[str, str] = {}
        self.leases: set[str] = set()
        self.denied: set[str] = set()
        self.key: VerifierKey
        self._store: CollectorStore
        self.disturbed: set[str] = set()
        self.stopped_at: dict[Life, int] = {}
        self.lost: set[Life] = set()
        """Lives whose last records went with a directory that was put back: nobody can know of them."""
        self.looking_away = False
        """An older copy of the collector's disk is in place: what it has is no news."""

    # At a sidecar.

    def emit(self, stream: str, records: Sequence[PendingRecord]) -> None:
        """Records of a sidecar became durable there."""
        for pending in records:
            record = pending.record
            life = self.emitted[stream, record.epoch]
            assert record.stream == stream, "A2: a record of another stream"
            assert record.sequence == len(life) + 1, (
                f"A2: {stream} epoch {record.epoch}: sequence {record.sequence} after {len(life)}"
            )
            life.append(record.digest)
            for canary in CANARIES:
                assert canary not in record.body, f"A8: {canary!r} in {record.body!r}"
            event = msgspec.json.decode(record.body)
            self._index(stream, event)
            if event["type"] == "sidecar.stopped":
                self.stopped_at[stream, record.epoch] = record.sequence
            self._emitted(stream, record.epoch, event)
            self._trace("emit", stream, record.sequence, record.digest)

    def _index(self, stream: str, event: dict[str, Any]) -> None:
        kind, details = event["type"], event.get("details", {})
        if kind == "call.admitted":
            self.calls[details["call"]] = "held"
        elif kind == "call.settled":
            self.calls[details["call"]] = "settled"
        elif kind == "lease.acquired":
            self.leases.add(event["lease"])
        elif event["outcome"] == Outcome.DENIED and event.get("request_id"):
            self.denied.add(event["request_id"])
            if details.get("count", 0) > 1:
                self._folded_at[stream] = self._now()

    def sent_upstream(self, call_id: str) -> None:
        """A byte of this call went to the provider."""
        assert call_id in self.calls, f"A1: call {call_id} was sent before its event was durable"

    def lease_given(self, name: str) -> None:
        """An agent has this lease."""
        assert name in self.leases, f"A1: {name} was given out before its event was durable"

    def denial_answered(self, stream: str, request_id: str) -> None:
        """An agent was refused, and the refusal has an event: its own, or one that was folded with others just now."""
        folded = self._now() - self._folded_at.get(stream, -1.0) < FOLDED_SECONDS
        assert request_id in self.denied or folded, f"A1: {request_id} was refused before the event was durable"

    def trimmed(self, stream: str, gone: Iterable[tuple[str, int]]) -> None:
        """A sidecar has forgotten these records."""
        for epoch, sequence in gone:
            assert self.accepted[stream, epoch] >= sequence, (
                f"A3: {stream} forgot record {sequence} of {epoch}, which the collector does not have"
            )

    # At the collector.

    def collector_opened(self, store: CollectorStore) -> None:
        """A process of the collector has opened the disk: what was acknowledged is there."""
        self._store = store
        if self.looking_away:
            return
        known = len(self.entries)
        (count,) = store._writer._connection.execute("SELECT count(*) FROM events").fetchone()
        assert count >= known, f"A3: the collector had {known} records and has {count} after a restart"
        self.collector_committed()

    def collector_committed(self) -> None:
        """What its disk has now that it had not."""
        if self.looking_away:
            return
        for position, stream, epoch, sequence, previous, digest, body in self._store._writer._connection.execute(
            ROWS, (len(self.entries),)
        ).fetchall():
            record = Record(position, stream, epoch, sequence, previous, digest, body)
            assert position == len(self.entries) + 1, f"A2: position {position} after {len(self.entries)}"
            assert sequence == self.accepted[stream, epoch] + 1, (
                f"A2: the collector took {sequence} of {stream} {epoch} after {self.accepted[stream, epoch]}"
            )
            if stream == OWN:
                for canary in CANARIES:
                    assert canary not in body, f"A8: {canary!r} in {body!r}"
                self._own(body)
            else:
                life = self.emitted[stream, epoch]
                assert sequence <= len(life), f"A4: {stream} never emitted {sequence} of {epoch}"
                assert digest == life[sequence - 1], f"A4: {sequence} of {stream} {epoch} is not what was emitted"
            self.accepted[stream, epoch] = sequence
            self.entries.append(record)
            self._trace("accept", position, digest)

    def acknowledged(self, stream: str, epoch: str, sequence: int) -> None:
        """The collector says that it has these."""
        assert self.accepted[stream, epoch] >= sequence, (
            f"A3: {stream} was told that {sequence} of {epoch} is durable; {self.accepted[stream, epoch]} is"
        )

    def published(self, note: bytes) -> None:
        """A checkpoint went out: signed with the key, over what is on the disk, after the one before (A5)."""
        fresh = self._checkpoint(note)
        size = fresh.size
        assert size <= len(self.entries), f"A5: a head over {size} records of {len(self.entries)}"
        if self.checkpoints:
            last = self.checkpoints[-1]
            assert size >= last.size, f"A5: a head of {size} after one of {last.size}"
            assert size != last.size or fresh.root == last.root, f"A5: two heads of size {size} differ"
        self.checkpoints.append(fresh)
        self._seen["checkpoint published"] += 1
        self._trace("checkpoint", size, fresh.root)

    def _checkpoint(self, note: bytes) -> Checkpoint:
        try:
            return Checkpoint.of_note(note, self.key)
        except LeaseholdError as error:
            message = f"A5: a checkpoint that its key does not verify: {error}"
            raise AssertionError(message) from None

    # Now and then, and at the end.

    async def prove(self, centre: Any) -> None:
        """The newest head continues every earlier one, by the centre's own proofs; lives have known ends (A5, A6)."""
        newest = centre.prove.checkpoint()
        known = {one.size: one for one in self.checkpoints}
        for size in self._some(sorted(known)):
            if 0 < size < newest.head.size:
                after, hashes = await centre.prove.consistency(size)
                head = self._checkpoint(after.note)
                assert consistent(size, known[size].root, head.size, head.root, hashes), (
                    f"A5: the head of {head.size} does not continue that of {size}"
                )
                self._seen["consistency proven"] += 1
        self.ends_known(await centre.store.heads())

    @staticmethod
    def _some(sizes: list[int]) -> list[int]:
        step = max(1, len(sizes) // 20)
        return sizes[::step]

    def ends_known(self, heads: Iterable[Any], *, at_the_end: bool = False) -> None:
        """Of each life either the whole is there, or it is flagged (A6).

        While copies run, one that was cut off is flagged when it tries to go on; at the end every one has tried. What
        came after the word that a process stops (a revocation, a refusal) is delivered by the next one.
        """
        newest = {head.stream: head.epoch for head in heads}
        for head in heads:
            if head.stream == OWN:
                continue
            emitted = len(self.emitted[head.stream, head.epoch])
            if head.state is LifeState.CLOSED:
                life = head.stream, head.epoch
                follows = self.stopped_at.get(life) == head.sequence or head.stream in self.disturbed
                excused = (follows and not at_the_end) or life in self.lost
                assert head.sequence == emitted or excused, (
                    f"A6: {head.stream} {head.epoch} is closed at {head.sequence}, {emitted} were emitted"
                )
            elif head.state is LifeState.OPEN:
                assert newest[head.stream] == head.epoch, f"A6: {head.stream} {head.epoch} is open and not the newest"
            else:
                self._seen["tail unknown"] += 1

    def whole(self, folder: Path, note: bytes) -> None:
        """An export verifies offline with nothing but the public key; the tree is what the records say (A5)."""
        head = self._checkpoint(note)
        entries = self.entries[: head.size]
        root = fold([leaf_hash(one.entry()) for one in entries])
        assert root == head.root, "A5: the last head is not over what the disk has"
        chains = verify((f"entry {one.position}", one) for one in entries)
        assert chains.flaw is None, f"A5: {chains.flaw}"
        write_copy(folder, entries, note, len(entries))
        copy = verify_copy(folder, self.key, self.checkpoints)
        assert copy.flaw is None, f"A5: {copy.flaw}"
        assert not copy.wrong, f"A5: {copy.wrong}"
        self._seen["log verified offline"] += 1

    def delivered(self, flagged: set[Life]) -> None:
        """Everything that was emitted is in the log, once; but for tails that are flagged as unknown (A4)."""
        for life, digests in self.emitted.items():
            if life in flagged | self.lost:
                assert self.accepted[life] <= len(digests)
                continue
            assert self.accepted[life] == len(digests), (
                f"A4: {life} emitted {len(digests)}, the log has {self.accepted[life]}"
            )
        places = Counter((one.stream, one.epoch, one.sequence) for one in self.entries)
        assert all(count == 1 for count in places.values()), "A2: a record twice"

    def put_back(self, stream: str) -> None:
        """A directory of this sidecar was put back: what it had not delivered is gone with it."""
        self.disturbed.add(stream)
        self.lost |= {
            life for life, digests in self.emitted.items() if life[0] == stream and self.accepted[life] < len(digests)
        }

    def replay(self, stream: str) -> Replay:
        """A ledger from the log of one stream alone (A7)."""
        events = [_Told(msgspec.json.decode(one.body)) for one in self.entries if one.stream == stream]
        return replayed(events)


class _Kind:
    def __init__(self, value: str) -> None:
        self.value = value


class _Told:
    """An event, as the reader of a log has it."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.type = _Kind(body["type"])
        self.lease = body.get("lease", "")
        self.details = body.get("details", {})
