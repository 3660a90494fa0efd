"""Check a copy of the collector's log. Owns the verdict: which entry is the first bad one, and what is missing.

Edits, removals in the middle, swaps and insertions break a chain or the count of positions. A log cut at its end is
whole in itself: only heads that were kept elsewhere show it, so `verify` takes them. What users run is the client's
implementation of the same, by another hand; this one is its judge.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from leasehold_broker.domain.audit_chain import GENESIS, broken_link
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.stream_head import StreamHead


@dataclass(frozen=True, slots=True)
class BadEntry:
    """The first entry that does not hold.

    Args:
        position: in the log.
        stream, epoch, sequence: of the record there.
        wrong: what, in words.
    """

    position: int
    stream: str
    epoch: str
    sequence: int
    wrong: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Args:
        checked: entries that hold, up to the first bad one.
        bad: the first bad entry; None when every one holds.
        heads: the last good record of each life of each stream.
        missing: kept heads that the copy does not reach, in words.
    """

    checked: int
    bad: BadEntry | None
    heads: tuple[StreamHead, ...]
    missing: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True when nothing is wrong and nothing is known to be missing."""
        return self.bad is None and not self.missing


def verify(records: Iterable[StoredRecord], kept: Iterable[StreamHead] = ()) -> Verdict:
    """Check a whole log, from position 1.

    Args:
        records: in the order of the copy.
        kept: heads noted earlier, from elsewhere: the copy must hold each of these records.
    """
    heads: dict[tuple[str, str], StreamHead] = {}
    wanted = {(head.stream, head.epoch, head.sequence): head for head in kept}
    position = 0
    for stored in records:
        record = stored.record
        last = heads.get((record.stream, record.epoch))
        wrong = None
        if stored.position != position + 1:
            wrong = f"position {stored.position} where {position + 1} was due"
        elif last is None:
            wrong = broken_link(record, 1, GENESIS)
        else:
            wrong = broken_link(record, last.sequence + 1, last.digest)
        noted = wanted.get((record.stream, record.epoch, record.sequence))
        if wrong is None and noted is not None and noted.digest != record.digest:
            wrong = "its digest is not the one that was kept: the log was rewritten from here or before"
        if wrong is not None:
            bad = BadEntry(stored.position, record.stream, record.epoch, record.sequence, wrong)
            return Verdict(position, bad, tuple(heads.values()), ())
        position = stored.position
        wanted.pop((record.stream, record.epoch, record.sequence), None)
        heads[record.stream, record.epoch] = StreamHead(
            record.stream, record.epoch, record.sequence, record.digest, stored.receive_wall_ms
        )
    missing = tuple(
        f"stream {head.stream!r}, epoch {head.epoch!r}: record {head.sequence} was kept and is not here"
        for head in wanted.values()
    )
    return Verdict(position, None, tuple(heads.values()), missing)
