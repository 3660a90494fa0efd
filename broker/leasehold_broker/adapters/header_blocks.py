"""Bounds the header blocks of a plaintext HTTP/2 connection, frame by frame (RFC 9113 sections 4.1 and 6.10).

gRPC's core keeps the bytes of an unfinished header block beyond its own metadata limit: a flood of CONTINUATION frames
grew the process by tens of MiB a connection. Owns the count; reads nothing but frame heads, and changes nothing.
"""

PREFACE_BYTES = 24
FRAME_HEAD_BYTES = 9
HEADERS, CONTINUATION = 0x1, 0x9
HEADER_BLOCK_BYTES_MAX = 10 * 1024
"""A little more than the metadata limit of 8 KiB: a legitimate block, compressed, is always smaller."""


class HeaderBlocks:
    """Follows one direction of one connection."""

    def __init__(self) -> None:
        """At the first byte."""
        self._skip = PREFACE_BYTES
        self._head = bytearray()
        self._block = 0

    def allow(self, data: bytes) -> bool:
        """Take the next bytes; False once a header block is longer than the bound: then end the connection."""
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                passed = min(self._skip, end - at)
                self._skip -= passed
                at += passed
                continue
            taken = data[at : at + FRAME_HEAD_BYTES - len(self._head)]
            self._head += taken
            at += len(taken)
            if len(self._head) == FRAME_HEAD_BYTES:
                if not self._frame():
                    return False
                self._head.clear()
        return True

    def _frame(self) -> bool:
        length, kind = int.from_bytes(self._head[:3], "big"), self._head[3]
        self._skip = length
        if kind == HEADERS:
            self._block = length
        elif kind == CONTINUATION:
            # An empty one counts too: a million of them are a flood as well.
            self._block += length + FRAME_HEAD_BYTES
        else:
            return True
        return self._block <= HEADER_BLOCK_BYTES_MAX
