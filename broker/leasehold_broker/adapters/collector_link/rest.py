"""When this sidecar tells what a revocation has ended. Owns a moment drawn from the spread that the centre names.

A fleet hears a revocation at once; a thousand sidecars that answer at once would be a thousand messages ahead of the
next revocation. What is revoked is dead meanwhile, and waits for nothing here.
"""

import asyncio
from collections.abc import Callable


class Rest:
    """Shared by both streams of one link."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """`chance` draws from [0, 1)."""
        self._chance = chance
        self._until = 0.0

    def begin(self, spread_seconds: float) -> None:
        """Draw a moment within the spread; one that is waited for already stays, so that it comes."""
        if spread_seconds and not self.seconds_left():
            self._until = asyncio.get_running_loop().time() + spread_seconds * self._chance()

    def seconds_left(self) -> float:
        """Until that moment; 0 once it has come."""
        return max(0.0, self._until - asyncio.get_running_loop().time())
