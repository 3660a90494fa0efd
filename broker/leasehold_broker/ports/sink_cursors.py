"""The port to how far each sink has come: what makes the log itself the queue of every sink."""

from typing import Protocol


class SinkCursors(Protocol):
    """One position for each sink, kept with the log."""

    async def cursor(self, sink: str) -> int | None:
        """Position up to which the sink has everything; None for a sink that was never fed."""
        ...

    async def move_cursor(self, sink: str, position: int) -> None:
        """Note it, synced.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
