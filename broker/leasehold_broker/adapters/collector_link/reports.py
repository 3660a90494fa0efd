"""What revocations have ended here, until the centre is known to have it. Owns the list; sends nothing.

Outlives the streams: what was written to one that broke off may never have come, and is told again on the next. The
centre keeps the first telling of each.
"""

from collections.abc import Iterable

from leasehold_broker.domain.revocation_progress import AppliedRevocation


class Reports:
    """In the order in which they came about."""

    def __init__(self) -> None:
        """Start with nothing to tell."""
        self._untold: list[AppliedRevocation] = []
        self._written = 0
        self._marks: list[tuple[int, int]] = []
        """Heartbeats that are not answered, and how many reports were written up to each."""

    def add(self, reports: Iterable[AppliedRevocation]) -> None:
        """These came about."""
        self._untold.extend(reports)

    def new_session(self) -> None:
        """On a new stream everything is told again that was not answered; heartbeats are counted anew."""
        self._written = 0
        self._marks.clear()

    def due(self, count_max: int) -> tuple[AppliedRevocation, ...]:
        """What to write next."""
        return tuple(self._untold[self._written : self._written + count_max])

    def written(self, count: int, heartbeat: int) -> None:
        """So many of those are about to be written, together with this heartbeat; 0: with none."""
        self._written += count
        if heartbeat and self._written:
            self._marks.append((heartbeat, self._written))

    def answered(self, heartbeat: int) -> None:
        """The centre answers a heartbeat only after all that was written up to it is durable there."""
        known = max((count for number, count in self._marks if number <= heartbeat), default=0)
        del self._untold[:known]
        self._written -= known
        self._marks = [(number, count - known) for number, count in self._marks if number > heartbeat]

    def forget(self, above_epoch: int) -> None:
        """Numbers above this one mean nothing any more; what is left is told again."""
        self._untold = [report for report in self._untold if report.epoch <= above_epoch]
        self.new_session()
