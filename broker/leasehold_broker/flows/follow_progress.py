"""How far one revocation, or several that follow each other, have come. Owns what a watcher has been told already.

Entries are applied in order, so whoever has applied the last has applied them all. A look costs what has changed, and
who is behind: of a thousand sidecars that are done none is looked at again.
"""

from collections.abc import Iterable

from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation, RevocationProgress, SidecarProgress
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_log import RevocationLog

LAPSE_MARGIN_SECONDS = 0.01
FRESH_ROWS_MAX = 64
"""So few that are behind are looked at each time: when one was heard last changes without its getting further."""


class FollowProgress:
    """Rows by sidecar, brought up to date look by look."""

    def __init__(
        self, fleet: Fleet, log: RevocationLog, clock: Clock, entry: Revocation, first_epoch: int | None = None
    ) -> None:
        """Of this entry, and with `first_epoch` of all from there: what they have ended is added up."""
        self._fleet = fleet
        self._log = log
        self._clock = clock
        self._entry = entry
        self._first_epoch = entry.epoch if first_epoch is None else first_epoch
        self._rows: dict[str, SidecarProgress] = {}
        self._behind: set[str] = set()
        self._ended: dict[str, AppliedRevocation | None] = {}
        """What was ended at those that are done; it does not change any more."""
        self._told = False

    async def look(self, changed: Iterable[str]) -> RevocationProgress:
        """Where a sidecar is not as it was told last; everywhere at first, and once one was forgotten.

        Args:
            changed: who may have got further; all members at first.
        """
        looked_at = {*changed, *(self._behind if len(self._behind) <= FRESH_ROWS_MAX else ())}
        while done := [name for name in looked_at if name not in self._ended and self._is_done(name)]:
            found = await self._log.applied_between(self._first_epoch, self._entry.epoch, done)
            self._ended.update((name, found.get(name)) for name in done)
        now = self._clock.now()
        fresh, changes_only = list[SidecarProgress](), self._told
        self._told = True
        for name in looked_at:
            member = self._fleet.members.get(name)
            self._behind.discard(name)
            if member is None:
                changes_only = self._rows.pop(name, None) is None and changes_only
                continue
            if not self._is_done(name):
                self._behind.add(name)
            row = self._row(member, now)
            if row != self._rows.get(name):
                self._rows[name] = row
                fresh.append(row)
        if not changes_only:
            return self.whole()
        return RevocationProgress(self._entry, _sorted(fresh), self._complete(now), changes_only=True)

    def whole(self) -> RevocationProgress:
        """Everywhere, as of the last look."""
        return RevocationProgress(self._entry, _sorted(self._rows.values()), self._complete(self._clock.now()))

    def seconds_to_next_lapse(self) -> float:
        """Until one more of those that are behind refuses by itself, if it stays silent."""
        now = self._clock.now()
        waits = (self._fleet.seconds_to_lapse(member, now) for member in self._members_behind())
        # Who has lapsed already is waited for no more.
        return min((wait for wait in waits if wait > 0), default=self._fleet.authority_seconds) + LAPSE_MARGIN_SECONDS

    def _complete(self, now: Instant) -> bool:
        return all(self._fleet.lapsed(member, now) for member in self._members_behind())

    def _members_behind(self) -> list[Member]:
        members = self._fleet.members
        return [members[name] for name in self._behind if name in members]

    def _is_done(self, name: str) -> bool:
        member = self._fleet.members.get(name)
        return member is not None and member.known.applied_epoch >= self._entry.epoch

    def _row(self, member: Member, now: Instant) -> SidecarProgress:
        known = member.known
        ended = self._ended.get(known.name) if known.applied_epoch >= self._entry.epoch else None
        return SidecarProgress(
            known.name,
            member.connected,
            known.applied_epoch,
            ended.leases_ended if ended else 0,
            ended.calls_cut if ended else 0,
            member.heard.wall_ms if member.session else known.last_heard_wall_ms,
            self._fleet.lapsed(member, now),
        )


def _sorted(rows: Iterable[SidecarProgress]) -> tuple[SidecarProgress, ...]:
    return tuple(sorted(rows, key=lambda row: row.sidecar))
