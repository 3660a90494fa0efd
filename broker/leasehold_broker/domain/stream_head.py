"""What the collector accepts into a stream. Owns order, duplicates, forks and fencing; stores nothing.

A record is new, a duplicate (same place, same digest: ignored), or refused. A stream has one life (epoch) at a time:
once a newer life has written, an older one may only repeat what is already here. What follows a hole is refused, unless
the operators of a collector that lost its store have said that holes are to be accepted: then each is named.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from leasehold_broker.domain.audit_chain import GENESIS, Linked, goes_on, misplaced
from leasehold_broker.domain.checked_record import chain_broken
from leasehold_broker.domain.reasons import Reason, Refusal

_Record = TypeVar("_Record", bound=Linked)


class LifeState(IntEnum):
    """What is known of a life's end (A6). The numbers are stored.

    OPEN: it is the stream's life, and may go on. CLOSED: its last record is here, by its own word (a stop) or by that
    of the life after it. TAIL_UNKNOWN: a newer life began, and nobody has said that nothing is missing.
    """

    OPEN = 0
    CLOSED = 1
    TAIL_UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The last accepted record of one life of a stream.

    Args:
        stream, epoch, sequence, digest: of that record.
        receive_wall_ms: when it came.
        state: of the life.
    """

    stream: str
    epoch: str
    sequence: int
    digest: bytes
    receive_wall_ms: int
    state: LifeState = LifeState.OPEN


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that a collector once had, or never had, and that nobody can send again.

    Args:
        stream, epoch: whose.
        first, last: sequences that are missing.
        digest: of the last missing one, as the record after it says.
    """

    stream: str
    epoch: str
    first: int
    last: int
    digest: bytes


def accept(
    head: StreamHead | None,
    earlier_epochs: Container[str],
    records: Sequence[_Record],
    digest_at: Callable[[str, int], bytes | None],
    receive_wall_ms: int,
    *,
    accept_gaps: bool = False,
) -> tuple[list[_Record], StreamHead | None, list[Gap]]:
    """The records that are new, in order, the head after them, and the holes before them.

    Args:
        head: of the stream's current life; None when nothing has been accepted yet.
        earlier_epochs: lives before the current one.
        records: all of one stream, in the order sent, each checked for itself (domain/checked_record.py).
        digest_at: digest of the accepted record at (epoch, sequence); None when there is none.
        receive_wall_ms: now.
        accept_gaps: let a record follow a hole.

    Raises:
        Refusal: AUDIT_CHAIN_BROKEN (gap, fork), AUDIT_EPOCH_FENCED. Then none is accepted.
    """
    if head is not None and records and goes_on(head.epoch, head.sequence, head.digest, records):
        last = records[-1]
        after = StreamHead(last.stream, last.epoch, last.sequence, last.digest, receive_wall_ms)
        return list(records), after, []
    fresh: list[_Record] = []
    gaps: list[Gap] = []
    passed: set[str] = set()
    for record in records:
        if head is not None and record.epoch == head.epoch and record.sequence > head.sequence:
            gaps += _check_link(record, head.sequence + 1, head.digest, accept_gaps=accept_gaps)
        elif (
            (head is None or record.epoch != head.epoch)
            and record.epoch not in earlier_epochs
            and record.epoch not in passed
        ):
            gaps += _check_link(record, 1, GENESIS, accept_gaps=accept_gaps)
            passed.update(() if head is None else (head.epoch,))
        else:
            _check_repeated(record, head, fresh, digest_at)
            continue
        fresh.append(record)
        head = StreamHead(record.stream, record.epoch, record.sequence, record.digest, receive_wall_ms)
    return fresh, head, gaps


def _check_link(record: Linked, sequence: int, previous: bytes, *, accept_gaps: bool) -> list[Gap]:
    gaps = []
    if accept_gaps and record.sequence > sequence:
        gaps.append(Gap(record.stream, record.epoch, sequence, record.sequence - 1, record.previous_digest))
        sequence, previous = record.sequence, record.previous_digest
    wrong = misplaced(record, sequence, previous)
    if wrong is not None:
        raise chain_broken(record, wrong)
    return gaps


def _check_repeated(
    record: Linked,
    head: StreamHead | None,
    fresh: Sequence[Linked],
    digest_at: Callable[[str, int], bytes | None],
) -> None:
    stored = digest_at(record.epoch, record.sequence)
    if stored is None:
        stored = next(
            (one.digest for one in fresh if (one.epoch, one.sequence) == (record.epoch, record.sequence)), None
        )
    if stored == record.digest:
        return
    if stored is not None:
        raise Refusal(
            Reason.AUDIT_CHAIN_BROKEN,
            f"stream {record.stream!r}: another record {record.sequence} of this epoch is stored already; two copies "
            "of one sidecar may be running",
            detail=f"fork at epoch {record.epoch}, sequence {record.sequence}",
        )
    current = "" if head is None else head.epoch
    raise Refusal(
        Reason.AUDIT_EPOCH_FENCED,
        f"stream {record.stream!r}: a newer life of this sidecar has written; stop this copy (runbooks/audit.md)",
        detail=f"epoch {record.epoch}, sequence {record.sequence}, current epoch {current}",
    )
