"""Events as rows of PostgreSQL's binary COPY. Owns those bytes, and that every word in them can be kept and indexed.

The library's own encoder asks of each value what it is, and grows its buffer piece by piece under it: that took a sixth
of what a record cost the replica that places it.
The format is the manual's, of COPY: a header, each row as its count of columns and each column with its length, an end.
"""

import struct
from collections.abc import AsyncIterator, Sequence

from leasehold_broker.domain.log_plan import LogRow
from leasehold_broker.domain.merkle import HASH_BYTES

COLUMNS = LogRow._fields
TEXT_MAX = 513
"""Of a column that is queried by, in characters: one more than a question may have, and short enough for an index."""
CHUNK_ROWS = 512
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NUMBERS = struct.Struct(">hiqiqiqiqiq")
_BIGINT_BYTES = 8
_LENGTH = struct.Struct(">i")
_DIGEST = struct.Struct(f">i{HASH_BYTES}si")
"""A digest, which is a hash that was computed here, and the length of the body behind it."""


async def copied(rows: Sequence[LogRow]) -> AsyncIterator[bytes]:
    """The whole of a COPY, in pieces.

    Raises:
        ValueError: a number or a word is none that PostgreSQL could keep.
    """
    yield _HEADER
    words: dict[tuple[str, ...], bytes] = {}
    for first in range(0, len(rows), CHUNK_ROWS):
        try:
            piece = _piece(rows[first : first + CHUNK_ROWS], words)
        except struct.error as error:
            raise ValueError(str(error)) from None
        yield piece
    yield _END


def _piece(rows: Sequence[LogRow], words: dict[tuple[str, ...], bytes]) -> bytes:
    numbers, length, ends, wide, count = _NUMBERS.pack, _LENGTH.pack, _DIGEST.pack, _BIGINT_BYTES, len(COLUMNS)
    parts: list[bytes] = []
    for row in rows:
        (
            position, life, sequence, receive_wall_ms, wall_ms, type_, outcome, lease, issuer, subject, key,
            previous_digest, digest, body,
        ) = row  # fmt: skip
        named = (type_, outcome, lease, issuer, subject, key)  # many records say the same
        said = words.get(named)
        if said is None:
            said = words[named] = b"".join([_text(word) for word in named])
        parts += (
            numbers(count, wide, position, wide, life, wide, sequence, wide, receive_wall_ms, wide, wall_ms),
            said,
            length(len(previous_digest)),
            previous_digest,
            ends(HASH_BYTES, digest, len(body)),
            body,
        )
    return b"".join(parts)


def _text(word: str) -> bytes:
    kept = clean(word).encode()
    return _LENGTH.pack(len(kept)) + kept


def clean(text: str) -> str:
    """As PostgreSQL can keep and index it; the body has the whole of it."""
    return text[:TEXT_MAX].replace("\0", "\ufffd")
