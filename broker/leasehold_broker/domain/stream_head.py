"""What the collector accepts into a stream. Owns order, duplicates, forks and fencing; stores nothing.

A record is new, a duplicate (same place, same digest: ignored), or refused. A stream has one life (epoch) at a time:
once a newer life has written, an older one may only repeat what is already here.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, broken_link
from leasehold_broker.domain.reasons import Reason, Refusal


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The last accepted record of one life of a stream.

    Args:
        stream, epoch, sequence, digest: of that record.
        receive_wall_ms: when it came.
    """

    stream: str
    epoch: str
    sequence: int
    digest: bytes
    receive_wall_ms: int


def accept(
    head: StreamHead | None,
    earlier_epochs: Container[str],
    records: Sequence[ChainedRecord],
    digest_at: Callable[[str, int], bytes | None],
    receive_wall_ms: int,
) -> tuple[list[ChainedRecord], StreamHead | None]:
    """The records that are new, in order, and the head after them.

    Args:
        head: of the stream's current life; None when nothing has been accepted yet.
        earlier_epochs: lives before the current one.
        records: all of one stream, in the order sent.
        digest_at: digest of the accepted record at (epoch, sequence); None when there is none.
        receive_wall_ms: now.

    Raises:
        Refusal: AUDIT_CHAIN_BROKEN (gap, fork, altered record), AUDIT_EPOCH_FENCED. Then none is accepted.
    """
    fresh: list[ChainedRecord] = []
    passed: set[str] = set()
    for record in records:
        if head is not None and record.epoch == head.epoch and record.sequence > head.sequence:
            _check_link(record, head.sequence + 1, head.digest)
        elif (
            (head is None or record.epoch != head.epoch)
            and record.epoch not in earlier_epochs
            and record.epoch not in passed
        ):
            _check_link(record, 1, GENESIS)
            passed.update(() if head is None else (head.epoch,))
        else:
            _check_repeated(record, head, fresh, digest_at)
            continue
        fresh.append(record)
        head = StreamHead(record.stream, record.epoch, record.sequence, record.digest, receive_wall_ms)
    return fresh, head


def _check_link(record: ChainedRecord, sequence: int, previous: bytes) -> None:
    wrong = broken_link(record, sequence, previous)
    if wrong is not None:
        raise Refusal(
            Reason.AUDIT_CHAIN_BROKEN,
            f"stream {record.stream!r}: {wrong}; nothing of this batch was stored, ask the operators of the collector",
            detail=f"epoch {record.epoch}, sequence {record.sequence}: {wrong}",
        )


def _check_repeated(
    record: ChainedRecord,
    head: StreamHead | None,
    fresh: Sequence[ChainedRecord],
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
        f"stream {record.stream!r}: a newer life of this sidecar has written already; stop this copy",
        detail=f"epoch {record.epoch}, sequence {record.sequence}, current epoch {current}",
    )
