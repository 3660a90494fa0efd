"""Bytes that nobody would call random: each answer differs, each run is the same."""

import hashlib


class CountingEntropy:
    """Implements the entropy port, deterministically."""

    def __init__(self, seed: str = "entropy") -> None:
        """Start."""
        self._seed = seed
        self._count = 0

    def bytes(self, count: int) -> bytes:
        """`count` bytes that no earlier call gave."""
        self._count += 1
        found = hashlib.shake_256(f"{self._seed}:{self._count}".encode()).digest(count)
        assert len(found) == count
        return found
