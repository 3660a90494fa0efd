"""Who leads a duty that only one of several processes may do. Owns when a holder counts as gone, and the fence.

A holder that goes on is seen by its beat. Whoever wants the lead measures the holder's silence on its own boot clock:
no two clocks are compared, and one that jumps neither takes the lead away nor keeps it.
"""

from dataclasses import dataclass, replace

from leasehold_broker.domain.time import Instant


@dataclass(frozen=True, slots=True)
class HeldLead:
    """A lead as it is stored.

    Args:
        holder: who has it.
        fence: grows by one with each new holder.
        beat: grows by one whenever its holder keeps it.
    """

    holder: str
    fence: int
    beat: int


class LeadWatch:
    """What one process has seen of the lead of another."""

    __slots__ = ("_seen", "_since")

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: HeldLead | None = None
        self._since: Instant | None = None

    def lapsed(self, held: HeldLead, seconds: float, now: Instant) -> bool:
        """True when this lead was looked at for so long, and did not go on."""
        if held != self._seen or self._since is None:
            self._seen, self._since = held, now
        return -now.seconds_until(self._since.boot_ns) >= seconds


def taken_by(held: HeldLead | None, holder: str, *, free: bool) -> HeldLead | None:
    """The lead when `holder` takes it or keeps it; None while it is another's. `free`: the other one is gone."""
    if held is None:
        return HeldLead(holder, 1, 0)
    if held.holder == holder:
        return replace(held, beat=held.beat + 1)
    return HeldLead(holder, held.fence + 1, 0) if free else None
