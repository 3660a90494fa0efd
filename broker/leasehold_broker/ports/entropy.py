"""The randomness port."""

from typing import Protocol


class Entropy(Protocol):
    """Unpredictable bytes from the operating system."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes."""
        ...
