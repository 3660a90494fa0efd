r"""A record without its body, as the Merkle log's entry. Owns those bytes; hashes no body.

    entry = stream || 0x00 || epoch || 0x00 || sequence (8 bytes, big-endian) || previous digest (32) || digest (32)

The digest stands for the body, so that a body may be dropped when its time has come and the entry, its place in the
chain and every proof stay what they were.
"""

import hashlib
from collections.abc import Iterable, Iterator

from leasehold_broker.domain.audit_chain import CHAIN_DOMAIN, Linked, LinkedBody
from leasehold_broker.domain.merkle import leaf_hash


def entry_of(record: Linked) -> bytes:
    """The log's entry for a record."""
    return (
        record.stream.encode()
        + b"\0"
        + record.epoch.encode()
        + b"\0"
        + record.sequence.to_bytes(8, "big")
        + record.previous_digest
        + record.digest
    )


def entry_hash(record: Linked) -> bytes:
    """Its leaf in the Merkle tree."""
    return leaf_hash(entry_of(record))


def digests_of(records: Iterable[LinkedBody]) -> Iterator[bytes]:
    """Of each record the digest that its content has: `record_digest`, in bulk."""
    sha256 = hashlib.sha256
    stream: str | None = None  # so that whatever the first is called, it is not that
    epoch, chained = "", b""
    for record in records:
        if record.epoch != epoch or record.stream != stream:
            stream, epoch = record.stream, record.epoch
            chained = b"%b%b\0%b\0" % (CHAIN_DOMAIN, stream.encode(), epoch.encode())
        place = record.sequence.to_bytes(8, "big") + record.previous_digest
        yield sha256(chained + place + record.body).digest()


def leaves_of(records: Iterable[Linked]) -> Iterator[bytes]:
    """Of each record its leaf: `entry_hash`, in bulk."""
    sha256 = hashlib.sha256
    stream: str | None = None
    epoch, entered = "", b""
    for record in records:
        if record.epoch != epoch or record.stream != stream:
            stream, epoch = record.stream, record.epoch
            entered = b"\0%b\0%b\0" % (stream.encode(), epoch.encode())
        yield sha256(entered + record.sequence.to_bytes(8, "big") + record.previous_digest + record.digest).digest()
