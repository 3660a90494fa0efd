"""The port to the credential that a secret engine stands on: nobody is shown it, and the engine makes its own next."""

from typing import Protocol


class EngineRoot(Protocol):
    """One engine's own credential. Both methods raise ProviderKeyFault."""

    async def check(self) -> None:
        """Have the engine issue a credential, and end that again: it can log in and do its work."""
        ...

    async def rotate(self) -> None:
        """Have the engine replace its own credential. One-way; again: once more, which harms nobody."""
        ...
