"""Bounds the header blocks of a plaintext HTTP/2 connection, as they come (RFC 9113, sections 6.2 and 6.10; RFC 7541).

gRPC's core keeps the headers of a block beyond its own metadata limit until the block ends: a flood of CONTINUATION
frames, or some thousand one-byte references to one large header, grew the process by tens of MiB a connection. Owns the
count of a block's bytes and headers; decodes nothing, and changes nothing.
"""

PREFACE_BYTES = 24
FRAME_HEAD_BYTES = 9
HEADERS, CONTINUATION = 0x1, 0x9
PADDED, PRIORITY = 0x08, 0x20
HEADER_BLOCK_BYTES_MAX = 10 * 1024
"""A little more than the metadata limit of 8 KiB: a legitimate block, compressed, is always smaller."""
HEADERS_MAX = 128
"""Headers of one block. A client sends some 15; the core's table bounds what each may stand for to 4 KiB."""
_INTEGER_BYTES_MAX = 5
_NEVER = -1


class HeaderBlocks:
    """Follows one direction of one connection."""

    def __init__(self) -> None:
        """At the first byte."""
        self._skip = PREFACE_BYTES
        self._head = bytearray()
        self._head_bytes = FRAME_HEAD_BYTES
        self._fragment = 0
        self._padding = 0
        self._block_bytes = 0
        self._headers = 0
        self._rest = b""

    def allow(self, data: bytes) -> bool:
        """Take the next bytes; False once a header block is longer than the bounds: then end the connection."""
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                passed = min(self._skip, end - at)
                self._skip -= passed
                at += passed
            elif self._fragment:
                taken = data[at : at + self._fragment]
                self._fragment -= len(taken)
                at += len(taken)
                if not self._count(taken):
                    return False
                if not self._fragment:
                    self._skip = self._padding
            else:
                taken = data[at : at + self._head_bytes - len(self._head)]
                self._head += taken
                at += len(taken)
                if len(self._head) == self._head_bytes and not self._frame():
                    return False
        return True

    def _frame(self) -> bool:
        head = self._head
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        self._skip = self._padding = 0
        if kind == HEADERS:
            # Before the block there may be a length of padding and a priority.
            before = min(length, (flags & PADDED != 0) + 5 * (flags & PRIORITY != 0))
            if len(head) < FRAME_HEAD_BYTES + before:
                self._head_bytes = FRAME_HEAD_BYTES + before
                return True
            self._padding = min(head[FRAME_HEAD_BYTES] if flags & PADDED and before else 0, length - before)
            self._fragment = length - before - self._padding
            if not self._fragment:
                self._skip = self._padding
            self._block_bytes, self._headers, self._rest = length, 0, b""
        elif kind == CONTINUATION:
            self._fragment = length
            # An empty one counts too: a million of them are a flood as well.
            self._block_bytes += length + FRAME_HEAD_BYTES
        else:
            self._skip = length
        head.clear()
        self._head_bytes = FRAME_HEAD_BYTES
        return self._block_bytes <= HEADER_BLOCK_BYTES_MAX

    def _count(self, taken: bytes) -> bool:
        block = self._rest + taken
        at = 0
        while at < len(block):
            after = _after_header(block, at)
            if after is None:
                break
            self._headers += 1
            if after == _NEVER or self._headers > HEADERS_MAX:
                return False
            at = after
        self._rest = block[at:]
        return True


def _after_header(block: bytes, at: int) -> int | None:
    """Where the next header of a block begins (RFC 7541, section 6); None while this one is not whole.

    `_NEVER` when an integer has more bytes than any needs: the core lets such pass, so they are not waited for.
    """
    first = block[at]
    if first & 0x80:  # a reference
        bits, strings = 7, 0
    elif first & 0xC0 == 0x40:  # a value, to be remembered
        bits, strings = 6, 1
    elif first & 0xE0 == 0x20:  # another size of the table: no header, but counted as one
        bits, strings = 5, 0
    else:  # a value
        bits, strings = 4, 1
    index, after = _integer(block, at, bits)
    for _ in range(strings + (strings and not index)):
        if after is None or after == _NEVER:
            break
        length, start = _integer(block, after, 7)
        whole = start is not None and start != _NEVER
        after = start + length if start is not None and whole else start
    return after if after is None or after <= len(block) else None


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int | None]:
    """An integer of section 5.1, and where it ends; None when it is not whole, `_NEVER` when it is too long."""
    if at >= len(block):
        return 0, None
    most = (1 << bits) - 1
    value = block[at] & most
    if value < most:
        return value, at + 1
    for count, byte in enumerate(block[at + 1 : at + 1 + _INTEGER_BYTES_MAX]):
        value += (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + 2 + count
    return value, _NEVER if len(block) > at + _INTEGER_BYTES_MAX else None
