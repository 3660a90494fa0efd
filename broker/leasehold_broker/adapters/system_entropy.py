"""The machine's randomness."""

import os

_BLOCK_BYTES = 4096


class SystemEntropy:
    """Implements `Entropy` with the operating system's generator, read in blocks. Lives on one thread.

    In blocks because each read releases the interpreter's lock, and a busy loop pays dearly to get it back. Handed out
    bytes are overwritten in the block, so that no token's origin lingers. A forked child must make its own.
    """

    def __init__(self) -> None:
        """Start with an empty block."""
        self._block = bytearray()
        self._used = 0

    def bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes."""
        if count > _BLOCK_BYTES:
            return os.urandom(count)
        if self._used + count > len(self._block):
            self._block = bytearray(os.urandom(_BLOCK_BYTES))
            self._used = 0
        end = self._used + count
        taken = memoryview(self._block)[self._used : end].tobytes()
        self._block[self._used : end] = bytes(count)
        self._used = end
        return taken
