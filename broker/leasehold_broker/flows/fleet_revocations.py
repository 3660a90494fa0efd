"""The collector's way to issue revocations and to see them arrive: port revocation_issuer over log and fleet."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from leasehold_broker.domain.revocation import Revocation, Selector
from leasehold_broker.domain.revocation_progress import (
    AppliedRevocation,
    Holder,
    RevocationProgress,
    SidecarProgress,
    matching_leases,
    matching_names,
)
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.flows.issue_revocation import issued_event
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import HOLDERS_SHOWN_MAX, MatchingLeases, RevocationDraft
from leasehold_broker.ports.revocation_log import RevocationLog

MATCHING_NAMES_MAX = 10_000
LAPSE_MARGIN_SECONDS = 0.01
LEASES_A_TURN = 2_000
"""Looked at before others have their turn: some milliseconds."""
HOLDERS_LEASES_MAX = 10_000
"""Looked at before a revocation is pushed: it must not wait for a list."""
PROGRESS_ROWS_PER_SECOND = 10_000
"""Told to one watcher at most: of a thousand sidecars ten times a second."""


class FleetRevocations:
    """Revocations of a fleet."""

    def __init__(self, fleet: Fleet, log: RevocationLog, clock: Clock) -> None:
        """Issue into this log, push to this fleet."""
        self._fleet = fleet
        self._log = log
        self._clock = clock

    async def matching(self, selector: Selector) -> MatchingLeases:
        """As the port says, from what the sidecars had reported when it was called; pushes go out meanwhile."""
        names: list[str] = []
        holders: Counter[Holder] = Counter()
        complete, looked_at = True, LEASES_A_TURN
        for name, live in [(name, member.live) for name, member in self._fleet.members.items()]:
            if looked_at >= LEASES_A_TURN:
                looked_at = 0
                await asyncio.sleep(0)
            looked_at += 1 + len(live.leases)
            found = matching_leases(selector, live.leases, name)
            names.extend(lease.name for lease in found)
            holders.update(Holder(name, lease.issuer, lease.subject) for lease in found)
            complete = complete and live.complete
        complete = complete and len(names) <= MATCHING_NAMES_MAX
        most = tuple(holders.most_common(HOLDERS_SHOWN_MAX))
        return MatchingLeases(tuple(sorted(names)[:MATCHING_NAMES_MAX]), complete, most)

    async def issue(self, draft: RevocationDraft) -> Revocation:
        """As the port says; every connected sidecar is woken before this returns, those with a matching lease first."""
        issuing = asyncio.ensure_future(self._log.issue(draft, lambda made: issued_event(made, draft)))
        await asyncio.sleep(0)  # the disk works while we look
        holders = self._holders(draft.selector)
        entry = await issuing
        self._fleet.issued(holders)
        return entry

    def _holders(self, selector: Selector) -> frozenset[str]:
        """Sidecars that have reported a lease that matches; of a fleet with very many leases, as far as one looks."""
        looked_at, found = 0, []
        for name, member in self._fleet.members.items():
            looked_at += len(member.live.leases)
            if looked_at > HOLDERS_LEASES_MAX:
                break
            if matching_names(selector, member.live.leases, name):
                found.append(name)
        return frozenset(found)

    async def progress(self, epoch: int) -> RevocationProgress | None:
        """As the port says."""
        entry = await self._log.find(epoch)
        if entry is None:
            return None
        applied = await self._log.applied_at(epoch)
        now = self._clock.now()
        rows = [
            _row(member, applied.get(name), lapsed=self._fleet.lapsed(member, now))
            for name, member in sorted(self._fleet.members.items())
        ]
        return RevocationProgress(entry, tuple(rows))

    async def page(self, before_epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says."""
        return await self._log.before(before_epoch, limit)

    async def watch(self, epoch: int) -> AsyncIterator[RevocationProgress]:
        """As the port says."""
        with self._fleet.watcher() as changed:
            last: RevocationProgress | None = None
            while True:
                changed.clear()
                progress = await self.progress(epoch)
                if progress is None:
                    return
                if progress != last:
                    yield progress
                    last = progress
                if progress.complete:
                    return
                await asyncio.sleep(len(progress.sidecars) / PROGRESS_ROWS_PER_SECOND)
                try:
                    async with asyncio.timeout(self._seconds_to_next_lapse(epoch)):
                        await changed.wait()
                except TimeoutError:
                    continue

    def _seconds_to_next_lapse(self, epoch: int) -> float:
        now = self._clock.now()
        waits = [
            self._fleet.seconds_to_lapse(member, now)
            for member in self._fleet.members.values()
            if member.known.applied_epoch < epoch
        ]
        # Who has lapsed already is waited for no more.
        return min((wait for wait in waits if wait > 0), default=self._fleet.authority_seconds) + LAPSE_MARGIN_SECONDS


def _row(member: Member, applied: AppliedRevocation | None, *, lapsed: bool) -> SidecarProgress:
    known = member.known
    return SidecarProgress(
        known.name,
        member.connected,
        known.applied_epoch,
        applied.leases_ended if applied else 0,
        applied.calls_cut if applied else 0,
        member.heard.wall_ms if member.session else known.last_heard_wall_ms,
        lapsed,
    )
