r"""The chain that makes tampering show. Owns the canonical body and the digest; refuses to store or ship.

digest(n) = SHA-256("leasehold/audit/v1\0" || stream || 0x00 || epoch || 0x00 || n (8 bytes, big-endian) ||
previous digest (32 bytes) || body). The first record of an epoch has 32 zero bytes as previous digest.
"""

import functools
import hashlib
from collections.abc import Iterable
from typing import Protocol

from leasehold_broker.domain.values import value

CHAIN_DOMAIN = b"leasehold/audit/v1\0"
GENESIS = bytes(32)


@value
class ChainedRecord:
    """One record of one stream. `body` is the event as canonical JSON: exactly the bytes that were hashed."""

    stream: str
    epoch: str
    sequence: int
    previous_digest: bytes
    body: bytes
    digest: bytes


class Linked(Protocol):
    """A record in its chain, whatever else is known of it."""

    @property
    def stream(self) -> str:
        """Name of the stream."""
        ...

    @property
    def epoch(self) -> str:
        """Life of the stream."""
        ...

    @property
    def sequence(self) -> int:
        """Place in that life, from 1."""
        ...

    @property
    def previous_digest(self) -> bytes:
        """Of the record before."""
        ...

    @property
    def digest(self) -> bytes:
        """Of this one."""
        ...


class LinkedBody(Linked, Protocol):
    """The same with its body."""

    @property
    def body(self) -> bytes:
        """The bytes that were hashed."""
        ...


@value
class ChainEnd:
    """Where one life of a stream ended: its last record."""

    epoch: str
    sequence: int
    digest: bytes


def record_digest(stream: str, epoch: str, sequence: int, previous_digest: bytes, body: bytes) -> bytes:
    """The digest of one record, 32 bytes."""
    head = _head(stream, epoch)
    return hashlib.sha256(b"%b%b%b%b" % (head, sequence.to_bytes(8, "big"), previous_digest, body)).digest()


@functools.lru_cache(maxsize=64)
def _head(stream: str, epoch: str) -> bytes:
    return b"%b%b\0%b\0" % (CHAIN_DOMAIN, stream.encode(), epoch.encode())


def chain(stream: str, epoch: str, sequence: int, previous_digest: bytes, body: bytes) -> ChainedRecord:
    """The next record after `previous_digest`."""
    digest = record_digest(stream, epoch, sequence, previous_digest, body)
    return ChainedRecord(stream, epoch, sequence, previous_digest, body, digest)


def misplaced(record: Linked, expected_sequence: int, expected_previous: bytes) -> str | None:
    """What is wrong with the place of `record` as the next of its stream, in words; its content is not looked at."""
    if record.sequence != expected_sequence:
        return f"sequence {record.sequence} where {expected_sequence} was due"
    if record.previous_digest != expected_previous:
        return f"record {record.sequence} does not follow the record before it"
    return None


def goes_on(epoch: str, sequence: int, digest: bytes, records: Iterable[Linked]) -> bool:
    """True when the records are, one after the other, the next of a life whose last record this is."""
    for record in records:
        sequence += 1
        if record.sequence != sequence or record.previous_digest != digest or record.epoch != epoch:
            return False
        digest = record.digest
    return True


def altered(record: Linked) -> str:
    """What is said of a record whose digest is not that of its content."""
    return f"record {record.sequence} was altered: its digest does not match its content"


def broken_link(record: ChainedRecord, expected_sequence: int, expected_previous: bytes) -> str | None:
    """What is wrong with `record` as the next of its stream, in words, or None when it holds."""
    wrong = misplaced(record, expected_sequence, expected_previous)
    if wrong is not None:
        return wrong
    digest = record_digest(record.stream, record.epoch, record.sequence, record.previous_digest, record.body)
    return None if digest == record.digest else altered(record)
