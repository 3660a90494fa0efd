"""A source of keys in memory, complete: it serves, fails, waits and counts as told."""

import asyncio

from leasehold_broker.adapters.jwks_sources import KeysNotFetchedError


class MemoryKeySource:
    """Implements the key cache's source."""

    def __init__(self, data: bytes, fetches_per_minute: int = 2) -> None:
        """Serve `data`."""
        self.data = data
        self.fetches_per_minute = fetches_per_minute
        self.down = False
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> bytes | None:
        """The document, once the gate is open."""
        self.loads += 1
        await self.gate.wait()
        if self.down:
            raise KeysNotFetchedError("down")
        return self.data
