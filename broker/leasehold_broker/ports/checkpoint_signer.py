"""The port to the key that signs checkpoints."""

from typing import Protocol


class CheckpointSigner(Protocol):
    """Signs as one origin. The key stays inside."""

    @property
    def origin(self) -> str:
        """Name of the log, which is the name of the key."""
        ...

    @property
    def verifier_key(self) -> str:
        """The public key, as text."""
        ...

    def sign(self, text: bytes) -> bytes:
        """The signed note of a checkpoint's text."""
        ...
