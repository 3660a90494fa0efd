"""The port to whoever follows the log and remembers something of it: place and memory move together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from leasehold_broker.domain.events import Detail, Event

Remembered = Mapping[str, Detail]


@dataclass(frozen=True, slots=True)
class FollowerState:
    """How far a follower has come, and what it remembers, by its own keys."""

    position: int
    memory: Mapping[str, Remembered] = field(default_factory=dict)


class LogFollowers(Protocol):
    """The state of each follower, by name, kept with the log."""

    async def follower(self, name: str) -> FollowerState | None:
        """Its state; None for one that never followed.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def advance(
        self,
        name: str,
        position: int,
        memory: Mapping[str, Remembered | None],
        events: Sequence[Event] = (),
        *,
        since: int | None = None,
    ) -> None:
        """Note place and memory (None forgets a key) and record events of the collector, in one synced transaction.

        Args:
            name: of the follower.
            position: everything up to there is done with.
            memory: what changed of it.
            events: to be recorded with it.
            since: the place that is noted now, where only one may follow; None: whatever it is.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED, CONCURRENT_UPDATE (another replica has followed since); then nothing
                of it is done.
        """
        ...
