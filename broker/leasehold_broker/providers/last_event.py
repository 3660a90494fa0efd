"""Reading of a stream whose usage is in the event that ends it, known by its `type`."""

from collections.abc import Callable

from leasehold_broker.domain.price import Usage
from leasehold_broker.providers.checks import Object, kind_of
from leasehold_broker.providers.meters import decode
from leasehold_broker.providers.sse import SseEvent


class LastEvent:
    """The usage comes once, and is the last word."""

    def __init__(self, ends: frozenset[str], read: Callable[[Object], Usage | None]) -> None:
        """Args: ends: types of the events that end such a stream; read: usage of one of them."""
        self.usage: Usage | None = None
        self.final = False
        self._ends = ends
        self._read = read

    def event(self, event: SseEvent) -> bool:
        """Take one event; none is hidden."""
        if event.oversized or b'"usage"' not in event.data:
            return False
        data = decode(event.data)
        if data is not None and kind_of(data) in self._ends:
            self.usage = self._read(data)
            self.final = self.usage is not None
        return False
