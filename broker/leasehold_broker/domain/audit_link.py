r"""A record without its body, as the Merkle log's entry. Owns those bytes; hashes no body.

    entry = stream || 0x00 || epoch || 0x00 || sequence (8 bytes, big-endian) || previous digest (32) || digest (32)

The digest stands for the body, so that a body may be dropped when its time has come and the entry, its place in the
chain and every proof stay what they were.
"""

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.merkle import leaf_hash


def entry_of(record: ChainedRecord) -> bytes:
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


def entry_hash(record: ChainedRecord) -> bytes:
    """Its leaf in the Merkle tree."""
    return leaf_hash(entry_of(record))
